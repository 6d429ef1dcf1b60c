"""Record how much of each attempt's text the OpenAI-compatible API has streamed while it ran, and between which pieces
it told of safety checks; no content.

Both are written before they are streamed and frozen with the job's end, so that the events of a stream keep their
numbers in every replay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from arq.connections import ArqRedis

from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.values import count_of

ChunkCounts = dict[int, int]
"""Attempt -> chunks, by attempt."""
_MAX_RUN_S: Final = 604_800  # the highest run deadline that a policy may set
_MAX_CHECKS: Final = 100
_CHECK: Final = re.compile(rb"(\d{1,9}):(\d{1,9}):\d{1,15}:(.*)", re.DOTALL)


class StreamedCheck(NamedTuple):
    """What was told of safety checks after so many chunks of an attempt (0 before any text)."""

    attempt: int
    chunks: int
    state: bytes
    """JSON, as the caller gave it."""


class Streamed(NamedTuple):
    """What was streamed of a job."""

    chunks: ChunkCounts
    checks: tuple[StreamedCheck, ...] = ()


class StreamedChunks:
    """The records in Redis."""

    def __init__(self, redis: ArqRedis, result_ttl: int) -> None:
        self._redis, self._keep = redis, result_ttl + _MAX_RUN_S
        self._grow = script(redis, "jobs/grow_streamed")
        self._note_check = script(redis, "jobs/note_check")

    async def grow(self, job_id: str, attempt: int, chunks: int) -> Streamed:
        """Request to stream more; return what holds now.

        The request is refused when no worker holds the job any more, or a later attempt has streamed text.
        """
        args = [attempt, chunks, self._keep]
        async with store_errors("note what is streamed"):
            rows = await self._grow(keys=[keys.job(job_id), keys.streamed_chunks(job_id)], args=args)
        return _parse(zip(rows[::2], rows[1::2], strict=True))

    async def note_check(self, job_id: str, version: int, state: bytes) -> Streamed:
        """Request to tell of safety checks in the `state` of this version of the record; return what holds now.

        The request is refused when no worker holds the job any more, and for a state that is older or known.
        """
        args = [version, state, _MAX_CHECKS, self._keep]
        async with store_errors("note what is streamed of a check"):
            rows = await self._note_check(keys=[keys.job(job_id), keys.streamed_chunks(job_id)], args=args)
        return _parse(zip(rows[::2], rows[1::2], strict=True))

    async def read(self, job_id: str) -> Streamed:
        """Return what was streamed."""
        async with store_errors("read what was streamed", keys.streamed_chunks(job_id)):
            rows = await self._redis.hgetall(keys.streamed_chunks(job_id))
        return _parse(rows.items())


def _parse(rows: Iterable[tuple[bytes, bytes]]) -> Streamed:
    chunks: ChunkCounts = {}
    checks: dict[int, StreamedCheck] = {}
    for name, value in rows:
        place = count_of(name.removeprefix(b"check:")) if name.startswith(b"check:") else None
        if place is not None and (found := _CHECK.fullmatch(value)):
            checks[place] = StreamedCheck(int(found[1]), int(found[2]), found[3])
        elif (attempt := count_of(name)) is not None and (count := count_of(value)) is not None:
            chunks[attempt] = count
    return Streamed(dict(sorted(chunks.items())), tuple(checks[place] for place in sorted(checks)))
