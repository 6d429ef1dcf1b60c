"""The text of one running attempt: complete in memory for the answer, and in chunks to be stored in Redis.

`OutputFlusher` writes the chunks of all attempts of this process to Redis together: each every 50 ms while somebody
watches its job, twice a second while nobody does (a crash then costs half a second of text, which the resumed stream
sends again).
While Redis is unavailable they cost nothing but memory, and that is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from worker.jobs.errors import ContentDamaged, RecordUnreadable, StoreUnavailable
from worker.store.jobs.output_chunks import OutputChunk, OutputChunks, PendingChunk
from worker.store.values import report_unreadable
from worker.tasks.loop import loop_pass

WATCHED_INTERVAL_S, UNWATCHED_INTERVAL_S = 0.05, 0.5
"""Seconds between two flushes of one attempt."""
_UNWATCHED_PASSES = round(UNWATCHED_INTERVAL_S / WATCHED_INTERVAL_S)
MAX_CHUNK_CHARACTERS = 128 * 1024  # characters; written as JSON that is below 1 MiB, which every Redis takes
_MAX_UNSTORED_CHARACTERS = 64 * 2**20  # kept in memory while Redis is unavailable, over all attempts


class OutputBuffer:
    """Collects the output of an attempt. `add` is called for every delta."""

    __slots__ = (
        "_dirty", "_joined", "_waiting", "_waiting_from", "attempt", "due", "job_id", "length", "parts", "sequence",
        "token",
    )  # fmt: skip

    def __init__(self, job_id: str, attempt: int, token: str, dirty: set[OutputBuffer]) -> None:
        self.job_id, self.attempt, self.token = job_id, attempt, token
        self.parts: list[str] = []
        self.length = 0
        self.sequence = -1
        self.due = 0  # the pass of the flusher from which on it is written
        self._dirty = dirty
        self._joined = 0  # how many of `parts` are no single deltas any more
        self._waiting: list[str] = []
        self._waiting_from = 0

    def restore(self, chunks: list[OutputChunk]) -> None:
        """Begin with what an earlier holder stored: the chunks from the start up to the first gap."""
        for chunk in chunks:
            if chunk.offset != self.length:
                break
            self.parts.append(chunk.text)
            self.length += len(chunk.text)
            self.sequence = chunk.sequence
        self._waiting_from = self.length

    def add(self, sequence: int | None, text: str) -> None:
        """Append one delta."""
        self.parts.append(text)
        self.length += len(text)
        if sequence is not None:
            self.sequence = sequence
        if not self._waiting:
            self._dirty.add(self)
        self._waiting.append(text)

    @property
    def watched(self) -> bool:
        """Whether somebody reads along, or may do so: that is not known before the first flush."""
        return self.due == 0

    @property
    def safe(self) -> bool:
        """Whether all of it is in Redis, so that a resumed stream may continue behind the last event."""
        return not self._waiting

    def take(self) -> PendingChunk:
        """Return what is not stored yet as one chunk. A long one is stored in parts (`split_chunk`)."""
        text = "".join(self._waiting)
        self._join_parts()
        self._waiting.clear()
        chunk = OutputChunk(self.sequence, self._waiting_from, text)
        self._waiting_from += len(text)
        return PendingChunk(self.job_id, self.token, self.attempt, chunk)

    def _join_parts(self) -> None:
        """Join the deltas since the last call, and small parts with their neighbours: each string costs 60 bytes.

        A part is longer than all that follow it, so a character is copied a few times only, however long the text is.
        """
        parts = self.parts
        parts[self._joined :] = ["".join(parts[self._joined :])]
        while len(parts) > 1 and len(parts[-2]) <= len(parts[-1]):
            parts[-2:] = [parts[-2] + parts[-1]]
        self._joined = len(parts)

    def put_back(self, pending: PendingChunk) -> None:
        """Put a chunk that could not be stored back in front of what came since."""
        self._waiting.insert(0, pending.chunk.text)
        self._waiting_from = pending.chunk.offset
        self._dirty.add(self)

    def __str__(self) -> str:
        return "".join(self.parts)

    def __repr__(self) -> str:
        return f"<{self.length} characters of {self.job_id}:{self.attempt}>"


def split_chunk(pending: PendingChunk) -> list[PendingChunk]:
    """Return the chunk in parts that every Redis accepts.

    One script stores them, so none is there without the others, and the sequence number, which covers them all, is
    true of each.
    """
    job_id, token, attempt, chunk = pending
    size = MAX_CHUNK_CHARACTERS
    if len(chunk.text) <= size:
        return [pending]
    return [
        PendingChunk(job_id, token, attempt, OutputChunk(chunk.sequence, chunk.offset + at, chunk.text[at : at + size]))
        for at in range(0, len(chunk.text), size)
    ]


class OutputFlusher:
    """Writes what is not stored yet to Redis; calls `on_lost(job_id)` for a job whose lease another worker holds."""

    def __init__(self, chunks: OutputChunks, on_lost: Callable[[str], None]) -> None:
        self._chunks, self._on_lost = chunks, on_lost
        self.dirty: set[OutputBuffer] = set()
        self._passes = 0

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            await asyncio.sleep(WATCHED_INTERVAL_S)
            self._passes += 1
            if due := [text for text in self.dirty if text.due <= self._passes]:
                with loop_pass("text so far"):
                    await self._write(due)

    async def flush(self) -> None:
        """Write every chunk that is not stored yet; keep it for the next time if Redis is unavailable."""
        if self.dirty:
            await self._write(list(self.dirty))

    async def _write(self, texts: list[OutputBuffer]) -> None:
        self.dirty.difference_update(texts)
        out = [(text, text.take()) for text in texts]
        for text in texts:
            text.due = self._passes + _UNWATCHED_PASSES
        try:
            watched, lost = await self._chunks.append([part for _, pending in out for part in split_chunk(pending)])
        except (StoreUnavailable, RecordUnreadable, ContentDamaged) as error:
            if isinstance(error, RecordUnreadable):
                report_unreadable(error)
            unstored = 0
            for text, pending in out:
                unstored += len(pending.chunk.text)
                if unstored < _MAX_UNSTORED_CHARACTERS:
                    text.put_back(pending)  # past the bound the chunk is dropped: the stored cursor is before it
        else:
            for text in texts:
                if text.job_id in watched:
                    text.due = 0
            for job_id in lost:
                self._on_lost(job_id)

    def forget(self, text: OutputBuffer) -> None:
        """Drop what is not stored of an attempt that has ended."""
        self.dirty.discard(text)
