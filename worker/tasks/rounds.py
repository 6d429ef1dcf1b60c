"""What every loop of a worker has around one round, so that no stored value ends the loop or the process.

A value that can't be read is told of by its kind; what code raises that takes a value for what it is not, with type and
place, once a minute for each place. The next round comes as it would have anyway. Any other fault ends the part, and
the worker hands its jobs over; that Redis is away is the loop's own business.
"""

from __future__ import annotations

from typing import Final, Self

from worker.clock import Clock
from worker.jobs.errors import ContentDamaged, RecordUnreadable
from worker.store.values import PARSE_ERRORS, report_unreadable
from worker.telemetry.internal_errors import broke, place

_AGAIN_SECONDS: Final = 60.0
_MOST_PLACES: Final = 1_000
_CLOCK: Final = Clock()
_told: dict[tuple[str, str], float] = {}


class loop_pass:  # noqa: N801  reads like the contextlib function that it would be, at a third of the price
    """One round of the loop `what`: what a value breaks in it is told, and does not leave it. Other faults do.

    `broken` is True behind a round that broke.
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
        elif _is_news(self._what, place(error)):
            broke("round.broke", error, what=self._what)
        return True


def _is_news(what: str, at: str) -> bool:
    now = _CLOCK.monotonic()
    if _told.get((what, at), -_AGAIN_SECONDS) + _AGAIN_SECONDS > now:
        return False
    if len(_told) > _MOST_PLACES:
        _told.clear()
    _told[what, at] = now
    return True
