"""The frame around one pass of a worker's loop, so that no stored value ends the loop or the process.

A value that can't be read is reported by its kind. An exception that a wrong value causes (`PARSE_ERRORS`) is
reported with its type and the line that raised it, once a minute for each line. The next pass follows as usual. Any
other exception ends the loop, and the worker hands its jobs over. `loop_pass` lets StoreUnavailable through: each loop
decides what to do while Redis is unavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Self

from worker.clock import Clock
from worker.jobs.errors import ContentDamaged, RecordUnreadable, StoreUnavailable
from worker.store.values import PARSE_ERRORS, report_unreadable
from worker.telemetry.internal_errors import error_location, report_internal_error

_REPORT_INTERVAL_S: Final = 60.0
_MAX_REPORTED: Final = 1_000
_CLOCK: Final = Clock()
_reported: dict[tuple[str, str], float] = {}


class loop_pass:  # noqa: N801  reads like the contextlib function that it would be, at a third of the price
    """Run one pass of the loop `what`: report an exception that a stored value caused, and suppress it.

    `broken` is True after a pass that raised such an exception.
    """

    __slots__ = ("_what", "broken")

    def __init__(self, what: str) -> None:
        self._what, self.broken = what, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, (RecordUnreadable, ContentDamaged, *PARSE_ERRORS)):
            return False
        self.broken = True
        if isinstance(error, RecordUnreadable):
            report_unreadable(error)
        elif isinstance(error, ContentDamaged):
            report_unreadable(RecordUnreadable("", "wrong_shape"))
        elif _is_due(self._what, error_location(error)):
            report_internal_error("round.broke", error, what=self._what)
        return True


async def run_every(seconds: float, what: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run `work` in passes with a pause of `seconds` between them, until cancelled.

    A pass during which Redis is unavailable is given up; the next one makes up for it.
    """
    while True:
        with contextlib.suppress(StoreUnavailable), loop_pass(what):
            await work()
        await asyncio.sleep(seconds)


def _is_due(what: str, location: str) -> bool:
    """Return whether an error of this loop at this line should be reported (again)."""
    now = _CLOCK.monotonic()
    if _reported.get((what, location), -_REPORT_INTERVAL_S) + _REPORT_INTERVAL_S > now:
        return False
    if len(_reported) > _MAX_REPORTED:
        _reported.clear()
    _reported[what, location] = now
    return True
