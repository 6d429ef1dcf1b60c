"""The conversations with the API, without I/O: generators that say what to do next and are told what came of it.

    Send(ask)      -> Reply or Lost       a whole answer
    Listen(ask)    -> Reply or Lost       the head of a stream; Reply with the body where the status is not 200
    Read()         -> bytes or Lost       more of that stream, b"" at its end
    Hang()         -> None                that stream is not needed any more
    Pause(seconds) -> None
    Event          -> None                one for the caller

Two shells drive them, one that blocks and one that awaits; neither decides anything.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from worker.client import requests
from worker.client.errors import (
    ConnectionFailed,
    Problem,
    StillRunning,
    TimedOut,
    Unreadable,
    VigilError,
    api_error,
)
from worker.client.event_cursor import Cursor, Gap
from worker.client.models import Event, Job
from worker.client.requests import ApiRequest
from worker.client.retry import Retries, may_repeat, retry_after
from worker.client.sse import FrameTooLarge, Parser
from worker.clock import Clock

T = TypeVar("T")
_OK, _NO_CONTENT, _REDIRECTS = 200, 204, 300
_POLL_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 1.0  # a connection that lived this long was one


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)

    @property
    def good(self) -> bool:
        """Whether it is a 2xx."""
        return _OK <= self.status < _REDIRECTS


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection failed; `sent`: the request may have arrived. `why` is a class name, never content."""

    why: str
    sent: bool
    slow: bool = False


@dataclass(frozen=True, slots=True)
class SendRequest:
    """Ask, and give me the whole answer."""

    ask: ApiRequest[Any]


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Open a stream."""

    ask: ApiRequest[Any]


@dataclass(frozen=True, slots=True)
class ReadStream:
    """More of the open stream."""


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Hang up the open stream."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Let this many seconds pass."""

    seconds: float


Deed = SendRequest | OpenStream | ReadStream | CloseStream | Sleep
Told = Reply | ConnectionLost | bytes | None
Steps = Generator[Deed, Told, T]
Telling = Generator[Deed | Event, Told, T]


class Conversation:
    """The conversations of one client."""

    def __init__(self, url: str, retries: Retries, clock: Clock) -> None:
        self._url, self._retries, self._clock = url, retries, clock

    def call(self, ask: ApiRequest[T], until: float | None = None) -> Steps[T]:
        """The answer to one question, asked again where that can do no harm.

        `until`: goes on to that moment, however often, in place of `Retries.times`.
        """
        tries = 0
        while True:
            tries += 1
            told = yield SendRequest(ask)
            if isinstance(told, Reply) and told.good:
                return self._understood(ask, told)
            error, pause = self._judge(told, ask, tries)
            now = self._clock.monotonic()
            if pause is None or (tries > self._retries.times if until is None else now + pause >= until):
                raise error
            yield Sleep(pause)

    def wait(self, job_id: str, timeout: float | None) -> Steps[Job]:
        """The settled job. A lost API is asked again for `patience` seconds, or as long as there is time."""
        end = None if timeout is None else self._clock.monotonic() + timeout
        job: Job | None = None
        while True:
            now = self._clock.monotonic()
            left = _POLL_SECONDS if end is None else end - now
            if job is None:  # the first look shows whether there is an API at all: it is not waited for
                job = yield from self.call(requests.get(job_id))
            elif left <= 0:
                raise StillRunning(job, timeout or 0.0)
            else:
                poll = min(_POLL_SECONDS, left)
                until = now + poll + self._retries.patience
                ask = requests.get(job_id, poll, min(requests.ANSWER_SECONDS, max(left, 1.0)))
                job = yield from self.call(ask, min(end or until, until))
            if job.settled:
                return job

    def events(self, job_id: str, after: int, offset: int) -> Telling[None]:
        """Every event once and in order, over as many connections as it takes."""
        cursor, failures, met = Cursor(after, offset), 0, False
        lost_at = self._clock.monotonic()
        while not cursor.over:
            ask = requests.stream(job_id, cursor.after, cursor.offset)
            began = self._clock.monotonic()
            told = yield OpenStream(ask)
            if isinstance(told, Reply) and told.status == _NO_CONTENT:
                return
            if isinstance(told, Reply) and told.status == _OK:
                new, told = yield from self._read(cursor)
                yield CloseStream()
                now = self._clock.monotonic()
                if new or now - began > _STEADY_SECONDS:
                    failures, met, lost_at = 0, True, now
            if cursor.over:
                return
            failures += 1
            error, pause = self._judge_stream(told, ask, failures)
            late = self._clock.monotonic() + (pause or 0) > lost_at + self._retries.patience
            if pause is None or (late if met else failures > self._retries.times):
                raise error
            if pause:
                yield Sleep(pause)

    def _judge_stream(self, told: Told, ask: ApiRequest[None], failures: int) -> tuple[VigilError, float | None]:
        """The same for a stream; one that just ended is asked for again at once, the first time."""
        if told is not None:
            return self._judge(told, ask, failures)
        error = ConnectionFailed(self._url, "the event stream ended before the job did", sent=True)
        return error, self._retries.pause(failures - 1, self._clock.chance()) if failures > 1 else 0.0

    def _read(self, cursor: Cursor) -> Telling[tuple[bool, Told]]:
        """(did anything new come, what broke the stream off or None for its plain end)."""
        parser, new = Parser(), False
        try:
            while True:
                told = yield ReadStream()
                if not isinstance(told, bytes) or not told:
                    return new, None if isinstance(told, bytes) else told
                for frame in parser.feed(told):
                    event = cursor.take(frame)
                    if event is not None:
                        new = True
                        yield event
                if cursor.over:
                    return new, None
        except Gap:
            return new, None
        except FrameTooLarge:
            raise Unreadable(f"{self._url} sent an event that is too large to be one") from None

    def _understood(self, ask: ApiRequest[T], reply: Reply) -> T:
        try:
            body = json.loads(reply.body) if reply.body else None
        except ValueError:
            raise Unreadable(f"{self._url} answered {reply.status} without JSON; is that a Vigil?") from None
        try:
            return ask.read(body)
        except ValueError as error:
            where = type(error).__name__
            raise Unreadable(f"{self._url} answered with JSON that this client can't read ({where})") from None

    def _judge(self, told: Told, ask: ApiRequest[Any], tries: int) -> tuple[VigilError, float | None]:
        """(the error, the pause before it makes sense to ask again or None)."""
        chance = self._clock.chance()
        if isinstance(told, ConnectionLost):
            kind = TimedOut if told.slow else ConnectionFailed
            again = may_repeat(repeatable=ask.repeatable, status=None, sent=told.sent)
            return kind(self._url, told.why, sent=told.sent), self._retries.pause(tries, chance) if again else None
        if not isinstance(told, Reply):
            raise TypeError(f"a shell told {type(told).__name__}")
        asked = retry_after(told.headers, self._clock.now())
        again = may_repeat(repeatable=ask.repeatable, status=told.status, sent=True)
        return self._refused(told, asked), self._retries.pause(tries, chance, asked) if again else None

    def _refused(self, reply: Reply, asked: float | None) -> VigilError:
        try:
            body = json.loads(reply.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            if reply.status in {502, 503, 504}:
                body = {}  # a proxy's own words
            else:
                return Unreadable(f"{self._url} answered {reply.status} without JSON; is that a Vigil?")
        return api_error(Problem.read(reply.status, body, reply.headers.get("x-request-id"), asked))
