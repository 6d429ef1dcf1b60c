"""A job's events as server-sent events: all so far, then live, without a gap and without a repeat.

Subscribed first, read afterwards; events are told apart by `seq`, text by its offset. Text of an attempt that is not
the current one is dropped, and none is sent once a block is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.runtime.broadcaster import Notification
from api.runtime.context import AppContext
from api.runtime.store_deadline import SECONDS, within
from api.schema.views import dumps
from worker.jobs import events as ev
from worker.jobs.errors import ContentDamaged, RecordUnreadable, StoreUnavailable
from worker.jobs.states import Outcome, Purpose
from worker.store.jobs.output_chunks import OutputChunk
from worker.store.values import report_unreadable

_HEARTBEAT: Final = 15.0
_KEY_CHECK: Final = 3.0
_AGAIN: Final = 0.5  # seconds between two questions to a Redis that is away
_TERMINAL: Final = frozenset(fact.TYPE for fact in ev.TERMINAL_FACTS)
_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class VisibleAttempt:
    """Which attempt's text watchers see, as the events tell it: the newest open one that is neither draft nor race."""

    def __init__(self) -> None:
        self._open: dict[int, str] = {}
        self.blocked = False

    def apply(self, event: dict[str, Any]) -> None:
        """After this event."""
        match event["type"]:
            case ev.AttemptStarted.TYPE:
                self._open[event["attempt"]] = event["data"]["purpose"]
            case ev.AttemptFinished.TYPE:
                self._open.pop(event["attempt"], None)
                self.blocked |= event["data"]["outcome"] == Outcome.BLOCKED
            case ev.Blocked.TYPE:
                self.blocked = True
            case _:
                pass

    @property
    def number(self) -> int | None:
        """The attempt, or None."""
        if self.blocked:
            return None
        main = [n for n, purpose in self._open.items() if purpose not in {Purpose.DRAFT, Purpose.RACE}]
        racing = [n for n, purpose in self._open.items() if purpose == Purpose.RACE]
        return max(main or racing, default=None)


class EventFeed:
    """What one watcher is told, in order, as bytes of an event stream."""

    def __init__(self, parts: AppContext, key: str, job_id: str, after: int, offset: int) -> None:
        self._parts, self._key, self._job_id = parts, key, job_id
        self._after, self._seen, self._from = after, 0, offset
        self._current, self._sent, self._gap = VisibleAttempt(), dict[int, int](), False
        self._out: list[bytes] = []  # what is to be sent; it outlives a question to Redis that fails half-way
        self._read_before: int | None = None  # the attempt whose text a resuming watcher was reading

    async def run(self) -> AsyncGenerator[bytes, None]:
        """Ends after the terminal event, at our shutdown, or when the key is revoked; outlives a loss of Redis."""
        loop = asyncio.get_running_loop()
        silent_since = loop.time()
        everything = Notification(changed=True, missed=True)
        with self._parts.hub.watch(self._job_id, text=True) as watcher:
            note: Notification | None = everything
            while True:
                again = None
                try:
                    ended = note is not None and await self._answer(note)
                    ended = ended or not await self._may_watch()
                except StoreUnavailable:
                    ended, again = False, everything
                chunks, self._out = self._out, []
                if chunks:
                    silent_since = loop.time()
                    yield b"".join(chunks)
                if ended or (note is not None and note.closing):
                    return
                if loop.time() - silent_since >= _HEARTBEAT:
                    silent_since = loop.time()
                    yield b": still here\n\n"
                pause = _AGAIN if again else min(_KEY_CHECK, silent_since + _HEARTBEAT - loop.time())
                note = await watcher.next(pause)
                if again is not None:
                    note = everything._replace(closing=note is not None and note.closing)

    async def _may_watch(self) -> bool:
        return await within(SECONDS, self._parts.keyring.find(self._key)) is not None

    async def _answer(self, note: Notification) -> bool:
        """Whether the stream is over; what this note makes of it stands in `_out`.

        `_out` and the mark of how far we are change together, so that a failure half-way loses and doubles nothing.
        """
        jobs, out = self._parts.jobs, self._out
        trail = await within(SECONDS, jobs.trail(self._job_id, self._seen)) if note.changed else []
        ends = next((e for e in trail if e["type"] in _TERMINAL), None)
        blocked = self._current.blocked or any(_blocks(e) for e in trail)
        if not blocked:
            out += self._deltas(note.pieces)
        for event in trail:
            if event is ends and event["type"] == ev.Completed.TYPE and event["seq"] > self._after:
                out += await self._rest(event)
            self._current.apply(event)
            self._seen = event["seq"]
            if event["seq"] <= self._after:
                self._read_before = self._current.number or self._read_before
            else:
                out.append(b"id: %d\nevent: %s\ndata: %s\n\n" % (event["seq"], event["type"].encode(), dumps(event)))
        if ends is None:
            before = self._current.number
            if before is not None and (note.missed or self._gap or before not in self._sent):
                kept = await self._kept(before)
                self._gap = False
                out += self._deltas([(before, _joined(kept))] if kept else [])
            out += self._deltas(note.pieces)
        return ends is not None

    async def _kept(self, attempt: int) -> list[OutputChunk]:
        """The attempt's text so far; none where it can't be read: the end brings all of it."""
        try:
            return await within(SECONDS, self._parts.pieces.read(self._job_id, attempt))
        except RecordUnreadable as error:
            report_unreadable(error)
            return []

    def _deltas(self, pieces: Iterable[tuple[int, OutputChunk]]) -> list[bytes]:
        """What of these is new and belongs to the current attempt."""
        out = []
        for attempt, piece in pieces:
            if attempt != self._current.number:
                continue
            sent = self._start(attempt)
            fresh = piece.text[max(0, sent - piece.offset) :]
            if piece.offset > sent:
                self._gap = True  # something passed unheard: read it
            elif fresh:
                out.append(self._delta(attempt, sent, fresh))
        return out

    def _start(self, attempt: int) -> int:
        """How far this attempt's text has been sent; the one the watcher was reading starts where the watcher asked."""
        if attempt not in self._sent:
            self._sent[attempt] = self._from if self._read_before in {None, attempt} else 0
            self._from = 0
        return self._sent[attempt]

    def _delta(self, attempt: int, offset: int, text: str) -> bytes:
        self._sent[attempt] = offset + len(text)
        now = self._parts.clock.now()
        data = {"offset": offset, "delta": text}
        body = {"type": "job.output.delta", "at": now, "job_id": self._job_id, "attempt": attempt, "data": data}
        return b"event: job.output.delta\ndata: %s\n\n" % dumps(body)

    async def _rest(self, completed: dict[str, Any]) -> list[bytes]:
        """What the watcher has not seen of a finished answer, now that its pieces are gone."""
        try:
            answer = await within(SECONDS, self._parts.jobs.load_output(self._job_id)) or {}
        except (RecordUnreadable, ContentDamaged):  # the job itself says so to whoever asks for it
            return []
        winner, text = completed["attempt"], answer.get("output_text") or ""
        sent = self._start(winner)
        return [self._delta(winner, sent, text[sent:])] if len(text) > sent else []


def _joined(pieces: Sequence[OutputChunk]) -> OutputChunk:
    """One piece out of many; what two of them share is taken once."""
    start, text = pieces[0].offset, ""
    for piece in pieces:
        text += piece.text[max(0, start + len(text) - piece.offset) :]
    return OutputChunk(-1, start, text)


def _blocks(event: dict[str, Any]) -> bool:
    return bool(
        event["type"] == ev.Blocked.TYPE
        or (event["type"] == ev.AttemptFinished.TYPE and event["data"]["outcome"] == Outcome.BLOCKED)
    )


class EventStreamResponse(Response):
    """The answer: a feed written out until it ends or nobody listens any more."""

    def __init__(self, feed: EventFeed) -> None:
        super().__init__()
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends the stream."""
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        writing = asyncio.create_task(self._write(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            writing.cancel()
            ended = await asyncio.gather(writing, gone, return_exceptions=True)
        if isinstance(ended[0], Exception):
            raise ended[0]

    async def _write(self, send: Send) -> None:
        feed = self._feed.run()
        try:
            async for chunk in feed:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            await feed.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def as_list(trail: list[dict[str, Any]]) -> dict[str, Any]:
    """The events as a list."""
    return {"object": "list", "data": trail, "next_cursor": None}
