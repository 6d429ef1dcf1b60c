"""Decides how to read on after a connection ended without a terminal event.

Pure: the end of a connection in, the next step out; no clock and no socket. Only a background response can be read
again, and only once it has an id. It is given up only when the provider says that it is lost, or at the job's deadline;
time and failures alone never end it. A second response is never started here.

    answer to the request                    | what follows
    events, a snapshot                       | it exists: resume, or poll if streams bring nothing
    408, 409, 425, 429, 5xx, no connection   | the same again, no earlier than Retry-After asks
    401, 403, 407                            | the same again: a key can be corrected, a second response costs
    404 with an error object                 | lost, once it has lasted longer than the lag of a write
    404, 405, 501 without one (a page)        | the same again, for a minute if no look was ever answered
    410 as JSON, or a code that says expired | lost
    410 as a page (a gateway's)              | the same again
    400 and others to a resume               | the stream is not available any more: poll
    a code that blocks                       | the end

If no look was ever answered, and for a minute each has met 404, 405 or 501 as JSON without an error object, the
server has no such route (a gateway that starts again sends pages): the response is unreachable, and as it may run on,
no other one is created.

A server that never confirmed a background response may not support these requests at all: if it refuses them for as
long as a 404 may last, the response is unreachable, which says nothing about its state.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final, NamedTuple

from worker.jobs.states import Outcome
from worker.safety import classify
from worker.safety.codes import normalize_code
from worker.safety.stream import Closed, Rejected, StreamEvent

BACKOFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before the next request, by the number of ends in a row; the last repeats."""
MISSING_SECONDS: Final = 12.0
"""A 404 that lasts this long is not a lag between the provider's write and its reads."""
NO_ROUTE_SECONDS: Final = 60.0
"""A route that has been missing for this long, and was never there, is no gateway that starts again."""
_MAX_STEP_WITH_PROGRESS: Final = 2  # the highest step of BACKOFF for connections that bring something new
_MAX_RETRY_AFTER_S: Final = 86_400.0  # longer than any likely deadline of a job
_MISSING_DELAY_S: Final = 3.0  # between two requests for a response that is not found
_HEALTHY_SECONDS: Final = 5.0  # a connection that lasted this long was no failure, even if nothing came
_MAX_EMPTY_RESUMES: Final = 3  # short resumed streams without news, after which to poll
_NOT_FOUND: Final = 404
_GONE: Final = 410
_SERVER_FAULT: Final = 500
_NOT_IMPLEMENTED: Final = 501
_NO_ROUTE_STATUSES: Final = frozenset({404, 405, 501})
_TRANSIENT_STATUSES: Final = frozenset({401, 403, 407, 408, 409, 425, 429})
_EXPIRED_CODES: Final = frozenset({"response_expired", "expired"})
_NOT_FOUND_CODES: Final = frozenset({"response_not_found", "response_id_not_found"})


class NextRequest(Enum):
    """The kind of the next request."""

    CREATE = "create"
    RESUME = "resume"
    POLL = "poll"


class ConnectionEnd(NamedTuple):
    """The end of one connection. `end` is None for a poll that was answered."""

    end: StreamEvent | None
    progress: bool  # it brought something new
    opening: float  # seconds until the headers came, or until it failed
    lasted: float  # seconds from the headers on
    snapshot: bool = False  # it was answered with the state of the response instead of a stream


class Reconnect:
    """Counts the ends in a row and chooses: resume, poll, or report that the response is lost.

    `provider_asked`: the provider asked for the last wait, so nothing may cut it short.
    """

    def __init__(
        self,
        next_request: NextRequest,
        *,
        poll_interval: float,
        max_poll_interval: float,
        missing_timeout: float = MISSING_SECONDS,
    ) -> None:
        self.next_request = next_request
        self.provider_asked = False
        self.in_background: bool | None = None
        """Whether the provider runs the response in the background; None: not known, because no answer came."""
        self._max_poll_interval = max_poll_interval
        self._interval = poll_interval
        self._missing_timeout = missing_timeout
        self._missing: float | None = None  # seconds since the first 404 in a row, waits included
        self._no_route: float | None = 0.0  # seconds for which all looks met no route; None once one met it
        self._ends = 0
        self._empty = 0
        self._stream_again = True  # a resume that met a 404 may only have come too early

    def after(self, ended: ConnectionEnd) -> float | StreamEvent:
        """Return the seconds to wait before the request `next_request`, or the event that ends the attempt."""
        end, was = ended.end, self.next_request
        self.provider_asked = False
        if type(end) is Rejected and was is NextRequest.CREATE:
            return end
        missing = type(end) is Rejected and self._missing_now(end)
        if was is not NextRequest.CREATE:
            self._count_no_route(ended)
        if type(end) is Rejected:
            last = self._final_event(end, ended, missing=missing)
            if last is not None:
                return last
        elif end is None or ended.progress or ended.snapshot:
            self._missing = None
            self.in_background = (
                self.in_background or was is not NextRequest.CREATE
            )  # a response that can be read again does
        self._count(ended)
        wait = self._wait(ended)
        self.next_request = self._next(ended, missing=missing)
        if self._missing is not None:
            self._missing += wait
        if self._no_route:
            self._no_route += wait
        return wait

    def request_state(self) -> None:
        """Poll next, and return to the stream if the response still runs: a stream may hang forever."""
        if self.next_request is NextRequest.RESUME:
            self.next_request, self._stream_again = NextRequest.POLL, True

    def _final_event(self, end: Rejected, ended: ConnectionEnd, *, missing: bool) -> StreamEvent | None:
        """Return the event that ends the attempt, for an answer after which no other request helps, else None."""
        if classify.rejected(end).outcome is Outcome.BLOCKED:
            return end
        gone = end.http_status == _GONE and end.problem is not None and self.in_background is not False
        if gone or _code(end) in _EXPIRED_CODES:
            return Closed("lost")
        if self._no_route is not None and self._no_route >= NO_ROUTE_SECONDS and self.in_background is not False:
            return Closed("no_route")
        if not missing:
            return None
        self._missing = 0.0 if self._missing is None else self._missing + ended.opening
        if self._missing < self._missing_timeout:
            return None
        return Closed("unreachable" if self.in_background is False else "lost")

    def _missing_now(self, end: Rejected) -> bool:
        """Return whether the server that keeps the responses says that this one is not found."""
        status = end.http_status
        if self.in_background is False and (_is_final(status) or status == _NOT_IMPLEMENTED):
            return self.next_request is NextRequest.POLL or status in (_NOT_FOUND, _NOT_IMPLEMENTED)
        return (status == _NOT_FOUND and _has_error_object(end)) or _code(end) in _NOT_FOUND_CODES

    def _count_no_route(self, ended: ConnectionEnd) -> None:
        """Add to the time for which the route was missing; any answer about the response shows that there is one."""
        end = ended.end
        if type(end) is not Rejected:
            answered = end is None or ended.progress or ended.snapshot or (type(end) is Closed and end.opened)
            self._no_route = None if answered else self._no_route
        elif end.http_status not in _NO_ROUTE_STATUSES or end.problem is None:
            self._no_route = None if self._no_route is None else 0.0
        elif _has_error_object(end):
            self._no_route = None
        elif self._no_route is not None:
            self._no_route += max(ended.opening, 0.001)

    def _count(self, ended: ConnectionEnd) -> None:
        if ended.lasted >= _HEALTHY_SECONDS or ended.end is None:
            self._ends = 0
        elif ended.progress:
            self._ends = min(self._ends, _MAX_STEP_WITH_PROGRESS)
        if ended.progress or ended.lasted >= _HEALTHY_SECONDS:
            self._empty = 0
        elif self.next_request is NextRequest.RESUME and type(ended.end) is Closed and ended.end.opened:
            self._empty += 1

    def _wait(self, ended: ConnectionEnd) -> float:
        if ended.end is None or ended.snapshot:
            self._interval, wait = min(self._interval * 1.5, self._max_poll_interval), self._interval
            return wait
        wait = BACKOFF[min(self._ends, len(BACKOFF) - 1)]
        if self._missing is not None:
            wait = min(wait, _MISSING_DELAY_S)
        self._ends += 1
        retry_after = _retry_after_of(ended.end)
        if retry_after >= wait:
            self.provider_asked, wait = True, retry_after
        return wait

    def _next(self, ended: ConnectionEnd, *, missing: bool) -> NextRequest:
        end = ended.end
        if ended.snapshot:
            self._stream_again = False
            return NextRequest.POLL
        if self.next_request is NextRequest.CREATE:
            return NextRequest.RESUME
        if self.next_request is NextRequest.POLL:
            if end is None and self._stream_again:
                self._stream_again = False
                return NextRequest.RESUME
            return NextRequest.POLL
        if missing:
            return NextRequest.POLL
        too_old = type(end) is Rejected and _is_final(end.http_status) and end.http_status != _NOT_FOUND
        if too_old or self._empty >= _MAX_EMPTY_RESUMES:  # what can't be streamed any more can still be polled
            self._stream_again = False
            return NextRequest.POLL
        return NextRequest.RESUME


def _is_final(status: int) -> bool:
    """Return whether the same request would be refused again."""
    return status not in _TRANSIENT_STATUSES and status < _SERVER_FAULT


def _has_error_object(end: Rejected) -> bool:
    """Return whether the answer has an error object; a gateway's own page has none."""
    problem = end.problem
    return problem is not None and bool(problem.code or problem.type or problem.param)


def _code(end: Rejected) -> str | None:
    return normalize_code(end.problem.code) if end.problem is not None else None


def _retry_after_of(end: StreamEvent | None) -> float:
    """Return the seconds that the provider asks to wait, or 0."""
    if type(end) is not Rejected:
        return 0.0
    retry_after = end.retry_after
    if retry_after is None and end.problem is not None:
        retry_after = end.problem.retry_after
    return (
        min(retry_after, _MAX_RETRY_AFTER_S)
        if retry_after is not None and math.isfinite(retry_after) and retry_after > 0
        else 0.0
    )
