"""What the client sends and when it sends it again, without I/O.

Generators yield the next action and receive its result:

    SendRequest(request) -> Reply or ConnectionLost       send a request and read the whole response
    OpenStream(request)  -> Reply or ConnectionLost       open a stream; the Reply has a body if the status is not 200
    ReadStream()         -> bytes or ConnectionLost       read more of the stream, b"" at its end
    CloseStream()        -> None
    Sleep(seconds)       -> None
    Event                -> None                          one event for the caller

`Vigil` and `AsyncVigil` perform the actions; they decide nothing.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from . import requests
from .clock import Clock
from .errors import ConnectionFailed, Problem, StillRunning, TimedOut, Unreadable, VigilError, api_error
from .event_cursor import Cursor, Gap
from .models import Event, Job
from .requests import ApiRequest
from .retry import Retries, may_repeat, retry_after
from .sse import FrameTooLarge, Parser

T = TypeVar("T")
_OK, _NO_CONTENT, _REDIRECTS = 200, 204, 300
_LONG_POLL_S: Final = 30.0
_STABLE_CONNECTION_S: Final = 1.0
"""A stream that lived this long counts as a success, even without a new event: failures count from zero again."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def successful(self) -> bool:
        """Return whether the status is a 2xx."""
        return _OK <= self.status < _REDIRECTS


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection failed.

    `why`: the name of an exception class, never content. `sent`: the request may have arrived. `slow`: a timeout.
    """

    why: str
    sent: bool
    slow: bool = False


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Send a request and read the whole response."""

    request: ApiRequest[Any]


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Open a stream."""

    request: ApiRequest[Any]


@dataclass(frozen=True, slots=True)
class ReadStream:
    """Read more of the open stream."""


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Close the open stream."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait this many seconds."""

    seconds: float


Action = SendRequest | OpenStream | ReadStream | CloseStream | Sleep
Result = Reply | ConnectionLost | bytes | None
CallSteps = Generator[Action, Result, T]
StreamSteps = Generator[Action | Event, Result, T]


class Conversation:
    """The exchanges of one client with the API."""

    def __init__(self, url: str, retries: Retries, clock: Clock) -> None:
        self._url, self._retries, self._clock = url, retries, clock

    def call(self, request: ApiRequest[T], until: float | None = None) -> CallSteps[T]:
        """Return the answer to a request, sent again where that is safe.

        `until`: retry until that moment, however often, in place of `Retries.times`.
        """
        tries = 0
        while True:
            tries += 1
            result = yield SendRequest(request)
            if isinstance(result, Reply) and result.successful:
                return self._parse(request, result)
            error, delay = self._failure(result, request, tries)
            now = self._clock.monotonic()
            if delay is None or (tries > self._retries.times if until is None else now + delay >= until):
                raise error
            yield Sleep(delay)

    def wait(self, job_id: str, timeout: float | None) -> CallSteps[Job]:
        """Return the settled job. An API that goes away is retried for `patience` seconds, at most until the timeout.

        Raise StillRunning if the job has not settled within `timeout` seconds.
        """
        end = None if timeout is None else self._clock.monotonic() + timeout
        job: Job | None = None
        while True:
            now = self._clock.monotonic()
            left = _LONG_POLL_S if end is None else end - now
            if job is None:  # the first request shows whether there is an API at all: `patience` is not for it
                job = yield from self.call(requests.get(job_id))
            elif left <= 0:
                raise StillRunning(job, timeout or 0.0)
            else:
                poll = min(_LONG_POLL_S, left)
                until = now + poll + self._retries.patience
                request = requests.get(job_id, poll, min(requests.RESPONSE_TIMEOUT_S, max(left, 1.0)))
                job = yield from self.call(request, min(end or until, until))
            if job.settled:
                return job

    def events(self, job_id: str, after: int, offset: int) -> StreamSteps[None]:
        """Yield every event once and in order, over as many connections as it takes."""
        cursor, failures, connected = Cursor(after, offset), 0, False
        lost_at = self._clock.monotonic()
        while not cursor.over:
            request = requests.stream(job_id, cursor.after, cursor.offset)
            began = self._clock.monotonic()
            result = yield OpenStream(request)
            if isinstance(result, Reply) and result.status == _NO_CONTENT:
                return
            if isinstance(result, Reply) and result.status == _OK:
                new, result = yield from self._read(cursor)
                yield CloseStream()
                now = self._clock.monotonic()
                if new or now - began > _STABLE_CONNECTION_S:
                    failures, connected, lost_at = 0, True, now
            if cursor.over:
                return
            failures += 1
            error, delay = self._stream_failure(result, request, failures)
            late = self._clock.monotonic() + (delay or 0) > lost_at + self._retries.patience
            if delay is None or (late if connected else failures > self._retries.times):
                raise error
            if delay:
                yield Sleep(delay)

    def _stream_failure(
        self, result: Result, request: ApiRequest[None], failures: int
    ) -> tuple[VigilError, float | None]:
        """Return what `_failure` does; a stream that just ended (None) is opened again at once, the first time."""
        if result is not None:
            return self._failure(result, request, failures)
        error = ConnectionFailed(self._url, "the event stream ended before the job did", sent=True)
        return error, self._retries.delay(failures - 1, self._clock.jitter()) if failures > 1 else 0.0

    def _read(self, cursor: Cursor) -> StreamSteps[tuple[bool, Result]]:
        """Yield the new events; return (whether there were any, what broke the stream or None if it just ended)."""
        parser, new = Parser(), False
        try:
            while True:
                result = yield ReadStream()
                if not isinstance(result, bytes) or not result:
                    return new, None if isinstance(result, bytes) else result
                for frame in parser.feed(result):
                    event = cursor.take(frame)
                    if event is not None:
                        new = True
                        yield event
                if cursor.over:
                    return new, None
        except Gap:
            return new, None
        except FrameTooLarge:
            raise Unreadable(f"{self._url} sent an event that is too large") from None

    def _parse(self, request: ApiRequest[T], reply: Reply) -> T:
        try:
            body = json.loads(reply.body) if reply.body else None
        except ValueError:
            raise Unreadable(f"{self._url} answered {reply.status} without JSON; is that a Vigil?") from None
        try:
            return request.read(body)
        except ValueError as error:
            kind = type(error).__name__
            raise Unreadable(f"{self._url} answered with JSON that this client can't read ({kind})") from None

    def _failure(self, result: Result, request: ApiRequest[Any], tries: int) -> tuple[VigilError, float | None]:
        """Return (the error, the delay before the next try or None if there must be none)."""
        jitter = self._clock.jitter()
        if isinstance(result, ConnectionLost):
            kind = TimedOut if result.slow else ConnectionFailed
            again = may_repeat(repeatable=request.repeatable, status=None, sent=result.sent)
            error = kind(self._url, result.why, sent=result.sent)
            return error, self._retries.delay(tries, jitter) if again else None
        if not isinstance(result, Reply):
            raise TypeError(f"the result of a request is a {type(result).__name__}")
        seconds = retry_after(result.headers, self._clock.now())
        again = may_repeat(repeatable=request.repeatable, status=result.status, sent=True)
        return self._api_error(result, seconds), self._retries.delay(tries, jitter, seconds) if again else None

    def _api_error(self, reply: Reply, seconds: float | None) -> VigilError:
        try:
            body = json.loads(reply.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            if reply.status in {502, 503, 504}:
                body = {}  # the answer of a proxy before the API
            else:
                return Unreadable(f"{self._url} answered {reply.status} without JSON; is that a Vigil?")
        return api_error(Problem.read(reply.status, body, reply.headers.get("x-request-id"), seconds))
