"""A response as typed server-sent events: a replay of what has happened, then live to its end.

While a job runs, only the text of the attempt that can become the output is shown (none while two of them race), and
only what the store has recorded as shown (worker/store/jobs/streamed_chunks.py). So live events have the same numbers
as in every replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Final, Protocol

from api.openai_compat.check_states import CheckState, decode_state, encode_state, in_order
from api.openai_compat.content import load_input, load_output
from api.openai_compat.event_sequence import CHUNK, EventSequence, split
from api.openai_compat.response import ResponseSource
from api.runtime.broadcaster import Notification
from api.runtime.context import AppContext
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from api.web.problems import Problem, problem_of
from api.web.streaming import CutShort
from worker.jobs.errors import UNAUTHENTIC, ContentDamaged, RecordUnreadable, StoreUnavailable
from worker.jobs.record import Job
from worker.jobs.states import Outcome, Purpose
from worker.store.jobs.stored_job import StoredJob
from worker.store.jobs.streamed_chunks import Streamed, StreamedCheck
from worker.store.lifecycle.erasure import is_erased
from worker.store.values import report_unreadable

_HEARTBEAT_S: Final = 15.0
_KEY_CHECK_S: Final = 3.0
_STORE_RETRY_S: Final = 0.5
_EVERYTHING: Final = Notification(changed=True, missed=True)


class Sequence(Protocol):
    """What a stream is written in: the events of a response, or the chunks of a chat completion."""

    ended: bool
    gave_answer: bool
    emitted: dict[int, int]
    noted: int

    def take(self) -> bytes:
        """Return the frames since the last call."""

    def create(self, job: ResponseSource) -> None:
        """Emit that the job was accepted."""

    def begin(self, job: ResponseSource) -> None:
        """Emit that a run has begun."""

    def note_check(self, state: CheckState) -> None:
        """Emit what is known of safety checks."""

    def show(self, attempt: int, chunks: list[str]) -> Iterator[None]:
        """Emit more of an attempt's text."""

    def end(self, job: ResponseSource, streamed: Streamed) -> Iterator[None]:
        """Emit the end of a settled job."""

    def fail(self, problem: Problem) -> None:
        """Emit an error in place of the remaining events."""

    def stop(self) -> bool:
        """Emit that the stream ends before its job; return False if these events have no form for it."""


class UnshownText:
    """The part of an attempt's text that was not shown yet."""

    def __init__(self, attempt: int) -> None:
        self.attempt, self.gap = attempt, True
        self._start, self._text = 0, ""

    def add(self, offset: int, text: str) -> None:
        """Add a chunk; known text is skipped, and a chunk after a gap only marks the gap, so that the text is read."""
        end = self._start + len(self._text)
        if offset > end:
            self.gap = True
        else:
            self._text += text[end - offset :]

    @property
    def chunks(self) -> int:
        """Return how many full chunks of the attempt's text are known."""
        return (self._start + len(self._text)) // CHUNK

    def take(self, upto: int) -> list[str]:
        """Remove and return the known chunks up to that number."""
        size = max(0, min(upto, self.chunks) * CHUNK - self._start)
        out, self._text = split(self._text[:size]), self._text[size:]
        self._start += size
        return out


def showable_attempt(job: Job) -> int | None:
    """Return the attempt whose text may be shown now: the only one that can become the output; else None."""
    if any(a.outcome is Outcome.BLOCKED for a in job.attempts):
        return None
    running = [a.number for a in job.open_attempts if a.purpose is not Purpose.DRAFT]
    return running[0] if len(running) == 1 else None


def readable_attempt(job: Job, newest: int) -> int | None:
    """Return `newest`, the attempt whose text was shown last, if it can still become the output; else None."""
    blocked = any(a.outcome is Outcome.BLOCKED for a in job.attempts)
    return newest if not blocked and newest in {a.number for a in job.open_attempts} else None


class ResponseStream:
    """The event stream of one client."""

    def __init__(
        self, context: AppContext, key: str, stored: StoredJob, after: int = -1, events: Sequence | None = None
    ) -> None:
        """`events`: the form of the stream; without one, the typed events of a response after number `after`."""
        self._context, self._key, self._stored, self._id = context, key, stored, stored.job.id
        self._events: Sequence = events or EventSequence(self._id.removeprefix("job_"), after)
        self._streamed = context.streamed_chunks
        self._shown: Streamed | None = None
        self._last_state: bytes | None = None
        self._unshown: UnshownText | None = None
        self._request: dict[str, Any] | None = None
        self._created = False
        self.on_whole_answer: Callable[[], None] = lambda: None
        """Is called once the whole answer of the job is to be sent."""

    async def run(self) -> AsyncGenerator[bytes, None]:
        """Yield frames until the terminal event. An outage of Redis is waited out.

        The end of the process, the revocation of the key and the deletion of the response end it before: with an event
        that says so, or with CutShort.
        """
        loop = asyncio.get_running_loop()
        beat = loop.time() + _HEARTBEAT_S
        with self._context.broadcaster.watch(self._id, text=True) as watcher:
            note: Notification | None = _EVERYTHING
            while True:
                retry, stopped = False, note is not None and note.closing
                try:
                    ended = await self._advance(note) if note is not None else False
                    stopped = is_erased(self._stored) or (not ended and (stopped or not await self._may_watch()))
                except StoreUnavailable:
                    ended, retry = False, True
                cut = stopped and not self._events.stop()
                frames = self._events.take() or (b": still here\n\n" if loop.time() >= beat else b"")
                if frames:
                    beat = loop.time() + _HEARTBEAT_S
                    yield frames
                if cut:
                    raise CutShort
                if ended or stopped:
                    return
                note = await watcher.next(_STORE_RETRY_S if retry else min(_KEY_CHECK_S, beat - loop.time()))
                if retry:
                    note = _EVERYTHING._replace(closing=note is not None and note.closing)

    async def _may_watch(self) -> bool:
        try:
            return await with_timeout(STORE_TIMEOUT_S, self._context.key_cache.find(self._key)) is not None
        except RecordUnreadable as error:
            if error.why not in UNAUTHENTIC:
                raise
            return False  # the key's record was changed

    async def _advance(self, note: Notification) -> bool:
        """Emit what is new; return whether the stream has ended."""
        events = self._events
        if note.changed:
            stored = await with_timeout(STORE_TIMEOUT_S, self._context.jobs.load(self._id, locked=True))
            self._stored = stored if stored is not None else self._stored
        if is_erased(self._stored):
            return True
        job = self._stored.job
        if not self._created:
            self._stored, self._request = await with_timeout(STORE_TIMEOUT_S, load_input(self._context, self._stored))
            self._created = True
            events.create(self._source())
        if job.settled:
            streamed = await with_timeout(STORE_TIMEOUT_S, self._streamed.read(self._id))
            try:
                output = await with_timeout(STORE_TIMEOUT_S, load_output(self._context, job))
            except ContentDamaged as error:
                events.fail(problem_of(error))
            else:
                await _let_others_run(events.end(self._source(output), streamed))
                if events.gave_answer:
                    self.on_whole_answer()
            return True
        if job.started_at is not None:
            events.begin(self._source())
            await self._note_check(job)
            await self._emit_text(note, job)
        return events.ended

    def _source(self, output: dict[str, Any] | None = None) -> ResponseSource:
        return ResponseSource(self._stored.job, self._stored.private, self._request, output)

    async def _emit_text(self, note: Notification, job: Job) -> None:
        """Record more of the text as shown, and emit what was recorded."""
        if self._shown is None or note.missed:
            self._shown = await with_timeout(STORE_TIMEOUT_S, self._streamed.read(self._id))
        attempt = showable_attempt(job)
        reading = attempt or readable_attempt(job, max(self._shown.chunks, default=0))
        if reading is not None:
            unshown = await self._read(note, reading)
            if attempt is not None and unshown.chunks > self._shown.chunks.get(attempt, 0):
                self._shown = await with_timeout(
                    STORE_TIMEOUT_S, self._streamed.grow(self._id, attempt, unshown.chunks)
                )
        newest = max(self._shown.chunks, default=0)
        for step in in_order(self._shown, self._events.noted):
            if isinstance(step, StreamedCheck):
                self._events.note_check(decode_state(step))
                continue
            more = step.upto - self._events.emitted.get(step.attempt, 0)
            if more > 0 and step.attempt < newest:
                await _let_others_run(self._events.show(step.attempt, [""] * more))  # superseded, so withdrawn
            elif more > 0:
                known = self._unshown if step.attempt == reading else None
                chunks = known.take(step.upto) if known is not None else []
                if chunks:
                    await _let_others_run(self._events.show(step.attempt, chunks))
                if len(chunks) < more:
                    return  # what follows comes after text that is not known yet

    async def _note_check(self, job: Job) -> None:
        """Record what is now known of a safety check as told, if it is new."""
        state = encode_state(job)
        if state is not None and state != self._last_state:
            self._shown = await with_timeout(STORE_TIMEOUT_S, self._streamed.note_check(self._id, job.version, state))
            self._last_state = state

    async def _read(self, note: Notification, attempt: int) -> UnshownText:
        """Return the attempt's unshown text with all that is known of it."""
        unshown = self._unshown
        if unshown is None or unshown.attempt != attempt:
            unshown = self._unshown = UnshownText(attempt)
        for number, chunk in note.chunks:
            if number == attempt:
                unshown.add(chunk.offset, chunk.text)
        if unshown.gap or note.missed:
            unshown.gap = False
            try:
                chunks = await with_timeout(STORE_TIMEOUT_S, self._context.output_chunks.read(self._id, attempt))
            except RecordUnreadable as error:  # the end of the stream brings all of it
                report_unreadable(error)
                chunks = []
            for chunk in chunks:
                unshown.add(chunk.offset, chunk.text)
        return unshown


async def _let_others_run(steps: Iterator[None]) -> None:
    """Go through the steps, and let the loop serve others between them."""
    for _ in steps:
        await asyncio.sleep(0)
