"""How the reading of a response goes on after a connection ended without its terminal event.

Pure: the end of a connection in, the next step out; no clock and no socket. Only a background response can be read
again, and only once it has an id. Nothing here ever starts a second response.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from worker.safety.stream import Closed, Rejected, StreamEvent

BACKOFF: Final = (0.2, 0.5, 1.0, 2.0)  # seconds; the last repeats
_LONGEST_ASKED: Final = 30.0  # of a Retry-After that is heeded while reconnecting
_HEALTHY: Final = 5.0  # a connection that stood this long was no failure, even if nothing came
_EMPTY_RESUMES: Final = 3  # resumed streams that brought nothing new before we poll instead
_NOT_FOUND: Final = 404
_SERVER_FAULT: Final = 500
_AGAIN: Final = frozenset({408, 409, 425, 429})
_NOT_OURS: Final = frozenset({401, 403, 407})


class Way(Enum):
    """What the next request is."""

    CREATE = "create"
    RESUME = "resume"
    POLL = "poll"


class Ended(NamedTuple):
    """One connection that is over. `end` is None for a poll that was answered."""

    end: StreamEvent | None
    progress: bool  # it brought something new
    opening: float  # seconds until the headers came, or until it failed
    standing: float  # seconds from the headers on


class Reconnect:
    """Counts the failures in a row and chooses: resume, poll, or give up."""

    def __init__(self, way: Way, *, poll_first: float, poll_most: float, give_up_after: float) -> None:
        self.way = way
        self._poll_first, self._poll_most = poll_first, poll_most
        self._give_up_after = give_up_after
        self._interval = poll_first
        self._failing = 0.0  # seconds of failure in a row, waits included
        self._failures = 0
        self._empty = 0

    def after(self, ended: Ended) -> float | StreamEvent:
        """The seconds to wait before the next request of `way`; or the event that is the last word."""
        was, end = self.way, ended.end
        if end is None:
            self._recovered()
            self._interval, wait = min(self._interval * 1.5, self._poll_most), self._interval
            return wait
        if (last := self._last_word(end)) is not None:
            return last
        self._count(ended)
        self.way = self._next(end)
        if self.way is Way.POLL and was is not Way.POLL:
            return 0.0  # another way: nothing of it has failed yet
        wait = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        if type(end) is Rejected and end.retry_after is not None:
            wait = max(wait, min(end.retry_after, _LONGEST_ASKED))
        self._failing += wait
        if self._failing >= self._give_up_after:
            return end if type(end) is Closed else Closed("cut", type(end).__name__)
        return wait

    def _last_word(self, end: StreamEvent) -> StreamEvent | None:
        """The event that ends it all, for a rejection that no other request can mend."""
        if type(end) is not Rejected:
            return None
        status = end.http_status
        if status in _AGAIN or status >= _SERVER_FAULT:
            return end if self.way is Way.CREATE else None
        if self.way is Way.RESUME and status not in _NOT_OURS:
            return None
        return Closed("lost") if self.way is Way.POLL and status == _NOT_FOUND else end

    def _count(self, ended: Ended) -> None:
        if ended.progress or ended.standing >= _HEALTHY:
            self._recovered()
        else:
            self._failing += ended.opening
            self._failures += 1
        if ended.progress:
            self._empty = 0
        elif self.way is Way.RESUME and type(ended.end) is Closed and ended.end.opened:
            self._empty += 1

    def _recovered(self) -> None:
        self._failing, self._failures = 0.0, 0

    def _next(self, end: StreamEvent) -> Way:
        if self.way is Way.CREATE:
            return Way.RESUME
        if self.way is Way.RESUME:
            refused = type(end) is Rejected and end.http_status not in _AGAIN and end.http_status < _SERVER_FAULT
            # A stream that is too old (400) or was never kept (404) can still be polled.
            return Way.POLL if refused or self._empty >= _EMPTY_RESUMES else Way.RESUME
        return self.way
