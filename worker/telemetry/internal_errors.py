"""Reports internal errors without content: the exception's type and the line of our code, never its message.

Messages of foreign exceptions (json, pydantic, the SDK) can quote a prompt, and a frame's variables hold it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Final

from worker.telemetry.events import emit

Capture = Callable[[str, BaseException, dict[str, object]], None]
_OWN_PACKAGES: Final = ("worker", "api")
_captures: list[Capture] = []


def report_internal_error(event: str, error: BaseException, **fields: object) -> None:
    """Emit `event` with the exception's type and location, and pass the exception to every capture."""
    emit(event, error=type(error).__name__, at=error_location(error), **fields)
    for capture in _captures:
        capture(event, error, fields)


def error_location(error: BaseException) -> str:
    """Return `module:line` of the innermost frame in our own code; "" if there is none."""
    at = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in _OWN_PACKAGES:
            at = f"{module}:{line}"
    return at


def add_capture(capture: Capture) -> None:
    """Call `capture` with every internal error from now on."""
    if capture not in _captures:
        _captures.append(capture)


def remove_capture(capture: Capture) -> None:
    """Stop calling `capture`."""
    if capture in _captures:
        _captures.remove(capture)
