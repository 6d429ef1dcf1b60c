"""The text of one running attempt: whole in memory for the answer, in pieces on its way to Redis.

`OutputFlusher` takes the pieces of all attempts of this process to Redis together: every 50 ms while somebody watches,
twice a second while nobody does (a crash then costs half a second of text, which the resumed stream tells again).
Redis away costs nothing but memory, and that is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from worker.jobs.errors import ContentDamaged, RecordUnreadable, StoreUnavailable
from worker.store.jobs.output_chunks import OutputChunk, OutputChunks, PendingChunk
from worker.store.values import report_unreadable
from worker.tasks.rounds import loop_pass

WATCHED, UNWATCHED = 0.05, 0.5
"""Seconds between two flushes."""
MOST_IN_A_PART = 128 * 1024  # characters; written as JSON that is below 1 MiB, which every Redis takes
_MOST_WAITING = 64 * 2**20  # characters kept for a Redis that is away, over all attempts


class OutputBuffer:
    """What an attempt has said so far. `add` is called for every delta."""

    __slots__ = ("_dirty", "_waiting", "_waiting_from", "attempt", "job_id", "length", "parts", "sequence", "token")

    def __init__(self, job_id: str, attempt: int, token: str, dirty: set[OutputBuffer]) -> None:
        self.job_id, self.attempt, self.token = job_id, attempt, token
        self.parts: list[str] = []
        self.length = 0
        self.sequence = -1
        self._dirty = dirty
        self._waiting: list[str] = []
        self._waiting_from = 0

    def restore(self, pieces: list[OutputChunk]) -> None:
        """Takes up what an earlier holder kept: gapless pieces from the beginning, nothing behind a gap."""
        for piece in pieces:
            if piece.offset != self.length:
                break
            self.parts.append(piece.text)
            self.length += len(piece.text)
            self.sequence = piece.sequence
        self._waiting_from = self.length

    def add(self, sequence: int | None, text: str) -> None:
        """One more delta."""
        self.parts.append(text)
        self.length += len(text)
        if sequence is not None:
            self.sequence = sequence
        self._waiting.append(text)
        self._dirty.add(self)

    @property
    def safe(self) -> bool:
        """True when all of it is in Redis, so that a resume may go on behind the last event seen."""
        return not self._waiting

    def take(self) -> PendingChunk:
        """What waits, as one piece; `put_back` when it could not be kept. A long one is kept in parts (`parts_of`)."""
        text, count = "".join(self._waiting), len(self._waiting)
        if "".join(self.parts[-count:]) == text:  # a delta by itself costs 60 bytes, and streams are long
            self.parts[-count:] = [text]
        self._waiting.clear()
        piece = OutputChunk(self.sequence, self._waiting_from, text)
        self._waiting_from += len(text)
        return PendingChunk(self.job_id, self.token, self.attempt, piece)

    def put_back(self, outgoing: PendingChunk) -> None:
        """The piece waits again, in front of what came since."""
        self._waiting.insert(0, outgoing.chunk.text)
        self._waiting_from = outgoing.chunk.offset
        self._dirty.add(self)

    def __str__(self) -> str:
        return "".join(self.parts)

    def __repr__(self) -> str:
        return f"<{self.length} characters of {self.job_id}:{self.attempt}>"


def parts_of(outgoing: PendingChunk) -> list[PendingChunk]:
    """The piece in parts that no Redis finds too large. They are kept by one script, so none is there without the rest,
    and the sequence number, which covers them all, is true of each.
    """
    job_id, token, attempt, piece = outgoing
    if len(piece.text) <= MOST_IN_A_PART:
        return [outgoing]
    starts = range(0, len(piece.text), MOST_IN_A_PART)
    return [
        PendingChunk(
            job_id, token, attempt, OutputChunk(piece.sequence, piece.offset + at, piece.text[at : at + MOST_IN_A_PART])
        )
        for at in starts
    ]


class OutputFlusher:
    """Carries waiting pieces to Redis; `on_lost(job_id)` is called for a job whose lease is no longer ours."""

    def __init__(self, pieces: OutputChunks, on_lost: Callable[[str], None]) -> None:
        self._pieces, self._on_lost = pieces, on_lost
        self.dirty: set[OutputBuffer] = set()
        self.interval = UNWATCHED

    async def run(self) -> None:
        """Flushes until cancelled."""
        while True:
            await asyncio.sleep(self.interval)
            if self.dirty:
                with loop_pass("text so far"):
                    await self.flush()

    async def flush(self) -> None:
        """Every waiting piece is in Redis, or waits again because Redis is away."""
        texts = list(self.dirty)
        self.dirty.clear()
        out = [(text, text.take()) for text in texts]
        try:
            watching, lost = await self._pieces.append([part for _, o in out for part in parts_of(o)])
        except (StoreUnavailable, RecordUnreadable, ContentDamaged) as error:
            if isinstance(error, RecordUnreadable):
                report_unreadable(error)
            waiting = 0
            for text, outgoing in out:
                waiting += len(outgoing.chunk.text)
                if waiting < _MOST_WAITING:
                    text.put_back(outgoing)  # past the bound the piece is dropped: the cursor stands before it
        else:
            self.interval = WATCHED if watching else UNWATCHED
            for job_id in lost:
                self._on_lost(job_id)

    def forget(self, text: OutputBuffer) -> None:
        """The attempt is over: its pieces are not needed any more."""
        self.dirty.discard(text)
