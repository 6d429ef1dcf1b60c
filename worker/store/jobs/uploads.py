"""Writes the long images and files of a job to Redis before the job exists, piece by piece.

The commit of the job renames what was written. What belongs to no job in the end is discarded, or expires.
"""

from __future__ import annotations

from typing import Any, Final

from arq.connections import ArqRedis

from worker.jobs.errors import StoreUnavailable
from worker.store import keys, media
from worker.store.commands import Command
from worker.store.envelope import JobCipher
from worker.store.errors import store_errors

_KEPT_S: Final = 300


class Upload:
    """The images and files of one job that is to be created."""

    def __init__(self, redis: ArqRedis, cipher: JobCipher, job_id: str, mark: str) -> None:
        self._redis, self.cipher, self.job_id, self._mark = redis, cipher, job_id, mark
        self._key, self.size, self._pieces, self._complete = keys.upload(job_id), 0, 0, False

    async def add(self, piece: bytes) -> None:
        """Store the next piece, of at most 1 MiB. Raises StoreUnavailable."""
        await self._append(media.seal_piece(self.cipher, self._pieces, piece))
        self._pieces += 1

    async def finish(self, given: dict[str, Any], sizes: list[int]) -> None:
        """Store the input behind the pieces; `sizes`: the pieces of each string. Only the first call does something."""
        if not self._complete:
            await self._append(media.seal_head(self.cipher, given, self._mark, sizes))
            self._complete = True

    def commands(self) -> list[Command]:
        """Return what makes the upload the input of its job; they come first in the commit, as they may fail."""
        key = keys.job_input(self.job_id)
        return [("RENAME", self._key, key), ("PERSIST", key)]

    async def discard(self) -> None:
        """Delete what was uploaded, unless its job exists. Raises StoreUnavailable."""
        async with store_errors("discard an upload"):
            await self._redis.delete(self._key)

    async def _append(self, part: bytes) -> None:
        async with store_errors("take an upload"):
            if self.size:
                stored = await self._redis.append(self._key, part)
            else:
                await self._redis.set(self._key, part, ex=_KEPT_S)
                stored = len(part)
        self.size += len(part)
        if stored != self.size:
            raise StoreUnavailable("an upload has expired")
