"""Count how much of each attempt's text the OpenAI-compatible API has streamed while it ran; no content.

The count is written before the text is streamed and frozen with the job's end, so that the events of a stream keep
their numbers in every replay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from arq.connections import ArqRedis

from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
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
        """Request to stream more; return the counts that hold now.

        The request is refused when no worker holds the job any more, or a later attempt has streamed text.
        """
        args = [attempt, chunks, self._keep]
        async with store_errors("note what is streamed"):
            rows = await self._script(keys=[keys.job(job_id), keys.streamed_chunks(job_id)], args=args)
        return _sorted(zip(rows[::2], rows[1::2], strict=True))

    async def read(self, job_id: str) -> ChunkCounts:
        """Return the counts."""
        async with store_errors("read what was streamed", keys.streamed_chunks(job_id)):
            rows = await self._redis.hgetall(keys.streamed_chunks(job_id))
        return _sorted(rows.items())


def _sorted(rows: Iterable[tuple[bytes, bytes]]) -> ChunkCounts:
    counts = ((count_of(attempt), count_of(chunks)) for attempt, chunks in rows)
    return dict(sorted((a, chunks) for a, chunks in counts if a is not None and chunks is not None))
