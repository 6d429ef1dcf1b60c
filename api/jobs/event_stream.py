"""A job's events as server-sent events: all so far, then live, without gaps and without repeats.

It subscribes first and reads afterwards; events are deduplicated by `seq`, text by its offset. Text of an attempt that
is not the current one is dropped, and none is sent once a block is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from api.runtime.broadcaster import Notification
from api.runtime.context import AppContext
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from api.schema.views import dumps
from worker.jobs import events as ev
from worker.jobs.errors import UNAUTHENTIC, ContentDamaged, RecordUnreadable, StoreUnavailable
from worker.jobs.states import Outcome, Purpose
from worker.store.jobs.output_chunks import OutputChunk
from worker.store.values import report_unreadable

_HEARTBEAT_S: Final = 15.0
_KEY_CHECK_S: Final = 3.0
_STORE_RETRY_S: Final = 0.5
_TERMINAL: Final = frozenset(fact.TYPE for fact in ev.TERMINAL_FACTS)


class VisibleAttempt:
    """The attempt whose text is shown, derived from the events.

    It is the newest open one that is neither draft nor race, else the newest race.
    """

    def __init__(self) -> None:
        self._open: dict[int, str] = {}
        self.blocked = False

    def apply(self, event: dict[str, Any]) -> None:
        """Apply the next event."""
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
        """Return the number of the attempt, or None if no text may be shown."""
        if self.blocked:
            return None
        main = [n for n, purpose in self._open.items() if purpose not in {Purpose.DRAFT, Purpose.RACE}]
        racing = [n for n, purpose in self._open.items() if purpose == Purpose.RACE]
        return max(main or racing, default=None)


class EventFeed:
    """The event stream of one client, as bytes."""

    def __init__(
        self, context: AppContext, may_read: Callable[[], Awaitable[bool]], job_id: str, after: int, offset: int
    ) -> None:
        self._context, self._may_read, self._job_id = context, may_read, job_id
        self._after, self._seen, self._first_offset = after, 0, offset
        self._current, self._sent, self._gap = VisibleAttempt(), dict[int, int](), False
        self._resumed: int | None = None  # the attempt of whose text this stream sends a part only
        self.on_whole_answer: Callable[[], None] = lambda: None
        """Is called once the whole answer of a completed job is to be sent."""
        self._out: list[bytes] = []  # to be sent; kept when a read of Redis fails half-way
        self._read_before: int | None = None  # the attempt whose text a resuming client was reading

    async def run(self) -> AsyncGenerator[bytes, None]:
        """Yield chunks until the terminal event, the end of the process, of the token, or the revocation of the key.

        An outage of Redis is waited out.
        """
        loop = asyncio.get_running_loop()
        silent_since = loop.time()
        everything = Notification(changed=True, missed=True)
        with self._context.broadcaster.watch(self._job_id, text=True) as watcher:
            note: Notification | None = everything
            while True:
                retry = False
                try:
                    ended = note is not None and await self._advance(note)
                    ended = ended or not await self._may_watch()
                except StoreUnavailable:
                    ended, retry = False, True
                chunks, self._out = self._out, []
                if chunks:
                    silent_since = loop.time()
                    yield b"".join(chunks)
                if ended or (note is not None and note.closing):
                    return
                if loop.time() - silent_since >= _HEARTBEAT_S:
                    silent_since = loop.time()
                    yield b": still here\n\n"
                pause = _STORE_RETRY_S if retry else min(_KEY_CHECK_S, silent_since + _HEARTBEAT_S - loop.time())
                note = await watcher.next(pause)
                if retry:
                    note = everything._replace(closing=note is not None and note.closing)

    async def _may_watch(self) -> bool:
        try:
            return await with_timeout(STORE_TIMEOUT_S, self._may_read())
        except RecordUnreadable as error:
            if error.why not in UNAUTHENTIC:
                raise
            return False  # the key's record was changed

    async def _advance(self, note: Notification) -> bool:
        """Append what is new to `_out`, and return whether the stream has ended.

        `_out` and the position change together, so that a failure half-way loses and repeats nothing.
        """
        jobs, out = self._context.jobs, self._out
        trail = await with_timeout(STORE_TIMEOUT_S, jobs.trail(self._job_id, self._seen)) if note.changed else []
        ends = next((e for e in trail if e["type"] in _TERMINAL), None)
        blocked = self._current.blocked or any(_blocks(e) for e in trail)
        if not blocked:
            out += self._deltas(note.chunks)
        for event in trail:
            if event is ends and event["type"] == ev.Completed.TYPE and event["seq"] > self._after:
                out += await self._remaining_text(event)
            self._current.apply(event)
            self._seen = event["seq"]
            if event["seq"] <= self._after:
                self._read_before = self._current.number or self._read_before
            else:
                out.append(b"id: %d\nevent: %s\ndata: %s\n\n" % (event["seq"], event["type"].encode(), dumps(event)))
        if ends is None:
            before = self._current.number
            if before is not None and (note.missed or self._gap or before not in self._sent):
                stored = await self._stored_text(before)
                self._gap = False
                out += self._deltas([(before, _joined(stored))] if stored else [])
            out += self._deltas(note.chunks)
        return ends is not None

    async def _stored_text(self, attempt: int) -> list[OutputChunk]:
        """Return the attempt's text so far; none if it can't be read: the end of the stream brings all of it."""
        try:
            return await with_timeout(STORE_TIMEOUT_S, self._context.output_chunks.read(self._job_id, attempt))
        except RecordUnreadable as error:
            report_unreadable(error)
            return []

    def _deltas(self, chunks: Iterable[tuple[int, OutputChunk]]) -> list[bytes]:
        """Return the deltas of the text that is new and belongs to the current attempt."""
        out = []
        for attempt, chunk in chunks:
            if attempt != self._current.number:
                continue
            sent = self._start(attempt)
            new = chunk.text[max(0, sent - chunk.offset) :]
            if chunk.offset > sent:
                self._gap = True  # text in between was missed: read it
            elif new:
                out.append(self._delta(attempt, sent, new))
        return out

    def _start(self, attempt: int) -> int:
        """Return how many characters of this attempt were sent; a resumed one starts at the client's offset."""
        if attempt not in self._sent:
            self._sent[attempt] = self._first_offset if self._read_before in {None, attempt} else 0
            self._resumed = attempt if self._sent[attempt] else self._resumed
            self._first_offset = 0
        return self._sent[attempt]

    def _delta(self, attempt: int, offset: int, text: str) -> bytes:
        self._sent[attempt] = offset + len(text)
        now = self._context.clock.now()
        data = {"offset": offset, "delta": text}
        body = {"type": "job.output.delta", "at": now, "job_id": self._job_id, "attempt": attempt, "data": data}
        return b"event: job.output.delta\ndata: %s\n\n" % dumps(body)

    async def _remaining_text(self, completed: dict[str, Any]) -> list[bytes]:
        """Return the delta of what was not sent of a completed output, whose chunks are no longer stored."""
        try:
            output = await with_timeout(STORE_TIMEOUT_S, self._context.jobs.load_output(self._job_id)) or {}
        except (RecordUnreadable, ContentDamaged):  # `GET /v1/jobs/{id}` reports it
            return []
        winner, text = completed["attempt"], output.get("output_text") or ""
        sent = self._start(winner)
        if self._resumed != winner and _is_text(output):
            self.on_whole_answer()
        return [self._delta(winner, sent, text[sent:])] if len(text) > sent else []


def _is_text(output: dict[str, Any]) -> bool:
    """Return whether the output is its text: what else it may hold, such as calls of tools, the events do not show."""
    messages = all(isinstance(item, dict) and item.get("type") == "message" for item in output.get("output") or [])
    return bool(output.get("output_text")) and messages and not output.get("refusal")


def _joined(chunks: Sequence[OutputChunk]) -> OutputChunk:
    """Return one chunk of many; text that several contain is taken once."""
    start, text = chunks[0].offset, ""
    for chunk in chunks:
        text += chunk.text[max(0, start + len(text) - chunk.offset) :]
    return OutputChunk(-1, start, text)


def _blocks(event: dict[str, Any]) -> bool:
    return bool(
        event["type"] == ev.Blocked.TYPE
        or (event["type"] == ev.AttemptFinished.TYPE and event["data"]["outcome"] == Outcome.BLOCKED)
    )
