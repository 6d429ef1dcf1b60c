"""How much of each attempt's text the OpenAI-shaped face has shown while it ran: counts, no content.

Said before it is shown, and frozen with the job's end, so that the events of a stream keep their numbers for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from arq.connections import ArqRedis

from worker.store import keys
from worker.store.connection.errors import store_errors
from worker.store.connection.lua_scripts import script
from worker.store.values import count_of

ChunkCounts = dict[int, int]
"""Attempt -> chunks, by attempt."""
_MAX_RUN_S: Final = 604_800  # the highest run deadline that a policy may set


class StreamedChunks:
    """The counts in Redis."""

    def __init__(self, redis: ArqRedis, result_ttl: int) -> None:
        self._redis, self._keep = redis, result_ttl + _MAX_RUN_S
        self._script = script(redis, "jobs/grow_streamed")

    async def grow(self, job_id: str, attempt: int, chunks: int) -> ChunkCounts:
        """What may be shown: with the wish, or without it when the job is nobody's or the attempt is superseded."""
        args = [attempt, chunks, self._keep]
        async with store_errors("note what is shown"):
            rows = await self._script(keys=[keys.job(job_id), keys.streamed_chunks(job_id)], args=args)
        return _sorted(zip(rows[::2], rows[1::2], strict=True))

    async def read(self, job_id: str) -> ChunkCounts:
        """What was shown."""
        async with store_errors("read what was shown", keys.streamed_chunks(job_id)):
            rows = await self._redis.hgetall(keys.streamed_chunks(job_id))
        return _sorted(rows.items())


def _sorted(rows: Iterable[tuple[bytes, bytes]]) -> ChunkCounts:
    counts = ((count_of(attempt), count_of(chunks)) for attempt, chunks in rows)
    return dict(sorted((a, chunks) for a, chunks in counts if a is not None and chunks is not None))
