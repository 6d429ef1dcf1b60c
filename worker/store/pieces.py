"""The text of running answers, kept piece by piece so that a crash costs none of it and watchers see it grow.

A piece is (sequence, offset, text): the provider's last sequence number that it covers, how many characters came
before it, the characters. Pieces of hundreds of jobs go in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from arq.connections import ArqRedis

from worker.jobs.errors import ContentDamaged
from worker.store import codec, keys
from worker.store.content import boxes_of, boxes_to_write
from worker.store.pool import asking
from worker.store.scripts import Scripts, Word
from worker.store.vault import Box, text_field


class Piece(NamedTuple):
    """A stretch of an attempt's text; `sequence` -1 where the provider numbers nothing."""

    sequence: int
    offset: int
    text: str


class Outgoing(NamedTuple):
    """A piece on its way: whose, under which lease."""

    job_id: str
    token: str
    attempt: int
    piece: Piece


class Pieces:
    """Pieces in Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis, self._scripts = redis, Scripts(redis)

    async def keep(self, outgoing: Sequence[Outgoing]) -> tuple[int, list[str]]:
        """Keeps and publishes the pieces: (how many watch, the ids of jobs whose lease is lost: dropped)."""
        words: list[Word] = []
        boxes = await boxes_to_write(self._redis, {one.job_id for one in outgoing})
        for job_id, token, attempt, piece in outgoing:
            words += (job_id, token, f"{job_id}:{attempt}", boxes[job_id].seal(text_field(attempt), piece))
        async with asking("keep the text so far"):
            return await self._scripts.pieces(words)

    async def read(self, job_id: str, attempt: int) -> list[Piece]:
        """All pieces of an attempt, in order."""
        async with asking("read the text so far"):
            rows = await self._redis.lrange(keys.text(job_id, attempt), 0, -1)
        if not rows:
            return []
        found = await boxes_of(self._redis, [job_id])
        if job_id not in found:
            return []  # the job is gone
        box, name = found[job_id], text_field(attempt)
        return [Piece(*box.unseal(name, row)) for row in rows]


def parse_message(raw: bytes, box: Box | None) -> tuple[str, int, Piece]:
    """(job id, attempt, piece) of a message on the channel `keys.PIECES`; ContentDamaged without the right box."""
    head, _, body = raw.partition(b" ")
    job_id, _, attempt = head.decode().rpartition(":")
    if codec.is_plain(body):
        return job_id, int(attempt), Piece(*codec.unseal(body))
    if box is None:
        raise ContentDamaged(job_id, "text")
    return job_id, int(attempt), Piece(*box.unseal(text_field(attempt), body))
