"""A response as typed server-sent events: replayed as far as it is, then live to its end.

While a job runs, text is shown of the one attempt that can become the answer (none while two of them race), and only
what the store has noted as shown (worker/store/jobs/streamed_chunks.py). So live events have the numbers that every
replay gives them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.openai_compat.content import answer_of, with_asked
from api.openai_compat.event_sequence import CHUNK, EventSequence, cut
from api.openai_compat.response import ResponseSource
from api.runtime.broadcaster import Notification
from api.runtime.context import AppContext
from api.runtime.store_deadline import SECONDS, within
from api.web.problems import problem_of
from worker.jobs.errors import ContentDamaged, RecordUnreadable, StoreUnavailable
from worker.jobs.record import Job
from worker.jobs.states import Outcome, Purpose
from worker.store.jobs.stored_job import StoredJob
from worker.store.jobs.streamed_chunks import ChunkCounts, StreamedChunks
from worker.store.lifecycle.erasure import is_erased
from worker.store.values import report_unreadable

_HEARTBEAT: Final = 15.0
_KEY_CHECK: Final = 3.0
_AGAIN: Final = 0.5
_EVERYTHING: Final = Notification(changed=True, missed=True)


class UnshownText:
    """The end of an attempt's text that was not shown yet."""

    def __init__(self, attempt: int) -> None:
        self.attempt, self.gap = attempt, True
        self._from, self._text = 0, ""

    def add(self, offset: int, text: str) -> None:
        """A piece as it came; what is known already is skipped, what came after a gap waits to be read."""
        end = self._from + len(self._text)
        if offset > end:
            self.gap = True
        else:
            self._text += text[end - offset :]

    @property
    def chunks(self) -> int:
        """How many whole chunks of the attempt's text are known."""
        return (self._from + len(self._text)) // CHUNK

    def take(self, upto: int) -> list[str]:
        """The known chunks up to that number."""
        size = max(0, min(upto, self.chunks) * CHUNK - self._from)
        out, self._text = cut(self._text[:size]), self._text[size:]
        self._from += size
        return out


def showable(job: Job) -> int | None:
    """The attempt whose text may be shown now: the only one that can become the answer."""
    if any(a.outcome is Outcome.BLOCKED for a in job.attempts):
        return None
    running = [a.number for a in job.open_attempts if a.purpose is not Purpose.DRAFT]
    return running[0] if len(running) == 1 else None


def readable(job: Job, newest: int) -> int | None:
    """The attempt that has shown text last, while it may still become the answer beside another one."""
    blocked = any(a.outcome is Outcome.BLOCKED for a in job.attempts)
    return newest if not blocked and newest in {a.number for a in job.open_attempts} else None


class ResponseStream:
    """What one watcher is told."""

    def __init__(self, parts: AppContext, key: str, stored: StoredJob, after: int = -1) -> None:
        self._parts, self._key, self._stored, self._id = parts, key, stored, stored.job.id
        self._script = EventSequence(self._id.removeprefix("job_"), after)
        self._showing = StreamedChunks(parts.redis, parts.settings.result_ttl)
        self._shown: ChunkCounts | None = None
        self._tail: UnshownText | None = None
        self._asked: dict[str, Any] | None = None
        self._created = False

    async def run(self) -> AsyncGenerator[bytes, None]:
        """Ends after the terminal event, at our shutdown, when the key is revoked or the response deleted."""
        loop = asyncio.get_running_loop()
        beat = loop.time() + _HEARTBEAT
        with self._parts.hub.watch(self._id, text=True) as watcher:
            note: Notification | None = _EVERYTHING
            while True:
                again = False
                try:
                    ended = await self._advance(note) if note is not None else False
                    ended = ended or not await self._may_watch()
                except StoreUnavailable:
                    ended, again = False, True
                frames = self._script.take() or (b": still here\n\n" if loop.time() >= beat else b"")
                if frames:
                    beat = loop.time() + _HEARTBEAT
                    yield frames
                if ended or (note is not None and note.closing):
                    return
                note = await watcher.next(_AGAIN if again else min(_KEY_CHECK, beat - loop.time()))
                if again:
                    note = _EVERYTHING._replace(closing=note is not None and note.closing)

    async def _may_watch(self) -> bool:
        return await within(SECONDS, self._parts.keyring.find(self._key)) is not None

    async def _advance(self, note: Notification) -> bool:
        """Tells what there is to tell; True when that was all."""
        script = self._script
        if note.changed:
            stored = await within(SECONDS, self._parts.jobs.load(self._id, locked=True))
            self._stored = stored if stored is not None else self._stored
        if is_erased(self._stored):
            return True
        job = self._stored.job
        if not self._created:
            self._stored, self._asked = await within(SECONDS, with_asked(self._parts, self._stored))
            self._created = True
            script.create(self._told())
        if job.settled:
            shown = await within(SECONDS, self._showing.read(self._id))
            try:
                script.end(self._told(await within(SECONDS, answer_of(self._parts, job))), shown)
            except ContentDamaged as error:
                script.fail(problem_of(error))
            return True
        if job.started_at is not None:
            script.begin(self._told())
            await self._text(note, job)
        return False

    def _told(self, answer: dict[str, Any] | None = None) -> ResponseSource:
        return ResponseSource(self._stored.job, self._stored.private, self._asked, answer)

    async def _text(self, note: Notification, job: Job) -> None:
        """Tells what more of the text was shown, and shows more of it."""
        if self._shown is None or note.missed:
            self._shown = await within(SECONDS, self._showing.read(self._id))
        attempt = showable(job)
        reading = attempt or readable(job, max(self._shown, default=0))
        if reading is not None:
            tail = await self._read(note, reading)
            if attempt is not None and tail.chunks > self._shown.get(attempt, 0):
                self._shown = await within(SECONDS, self._showing.grow(self._id, attempt, tail.chunks))
        newest = max(self._shown, default=0)
        for number, count in self._shown.items():
            more = count - self._script.told.get(number, 0)
            if number < newest and more > 0:
                self._script.show(number, [""] * more)  # superseded: its text is withdrawn
            elif number == reading and self._tail is not None and (chunks := self._tail.take(count)):
                self._script.show(number, chunks)

    async def _read(self, note: Notification, attempt: int) -> UnshownText:
        """The attempt's tail with all that is known of its text."""
        tail = self._tail
        if tail is None or tail.attempt != attempt:
            tail = self._tail = UnshownText(attempt)
        for number, piece in note.pieces:
            if number == attempt:
                tail.add(piece.offset, piece.text)
        if tail.gap or note.missed:
            tail.gap = False
            try:
                pieces = await within(SECONDS, self._parts.pieces.read(self._id, attempt))
            except RecordUnreadable as error:  # the end brings all of it
                report_unreadable(error)
                pieces = []
            for piece in pieces:
                tail.add(piece.offset, piece.text)
        return tail


class StreamingAnswer(Response):
    """An answer that is written bit by bit until it ends or nobody listens any more."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str]) -> None:
        super().__init__(None, 200, {**headers, "x-accel-buffering": "no"}, media_type)
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Sends it."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
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
        try:
            async for chunk in self._chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            await self._chunks.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
