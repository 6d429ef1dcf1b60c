"""A fault of ours, told without content: the exception's type and where in our code it came from, never its text.

Messages of foreign exceptions (json, pydantic, the SDK) can quote a prompt; a frame's variables hold it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Final

from worker.telemetry.events import emit

Capture = Callable[[str, BaseException, dict[str, object]], None]
_OURS: Final = ("worker", "api")
_captures: list[Capture] = []


def report_internal_error(event: str, error: BaseException, **fields: object) -> None:
    """`event` was told with the fault's type and place, and whoever keeps faults has been shown it, once."""
    emit(event, error=type(error).__name__, at=error_location(error), **fields)
    for capture in _captures:
        capture(event, error, fields)


def error_location(error: BaseException) -> str:
    """`module:line` of the innermost frame of ours; "" when there is none."""
    at = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in _OURS:
            at = f"{module}:{line}"
    return at


def add_capture(capture: Capture) -> None:
    """`capture` is shown every fault from now on."""
    if capture not in _captures:
        _captures.append(capture)


def remove_capture(capture: Capture) -> None:
    """`capture` is shown no more."""
    if capture in _captures:
        _captures.remove(capture)
