"""Reads the inputs of jobs: whole, or without their long images and files, which no view of a job shows; or these piece
by piece, for a job that is to have the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from arq.connections import ArqRedis

from worker.store import keys, media
from worker.store.connection.job_keys import ciphers_of, unseal_by_job
from worker.store.connection.pool import keyring_of
from worker.store.envelope import INPUT, JobCipher
from worker.store.errors import store_errors

_READ_AT_FIRST = 64 * 1024
"""Bytes of an input of which only the first part may be needed."""


async def load(redis: ArqRedis, job_id: str, *, whole: bool = True) -> dict[str, Any] | None:
    """Return the input for the model, or None if it was removed; unless `whole`, with null for long strings.

    Raises KeyMissing, ContentDamaged, ContentNotSealed.
    """
    key = keys.job_input(job_id)
    async with store_errors("read the input", key):
        raw = await redis.get(key) if whole else await _without_pieces(redis, key)
    head = media.head_of(raw) if media.has_media(raw) else raw
    given = (await unseal_by_job(redis, INPUT, {job_id: head})).get(job_id)
    if not media.has_media(raw) or not isinstance(given, dict):
        return given
    if not whole:
        found: dict[str, Any] = media.without_media(job_id, given)
        return found
    restored: dict[str, Any] = await media.open_media(await _cipher_of(redis, job_id, raw), job_id, raw, given)
    return restored


async def _cipher_of(redis: ArqRedis, job_id: str, raw: bytes) -> JobCipher:
    """Return what opens the pieces of a stored input whose head was opened."""
    return keyring_of(redis).plain("", job_id) if media.is_plain(raw) else (await ciphers_of(redis, [job_id]))[job_id]


class KeptMedia:
    """The long images and files of a job's input, for which placeholders stand in it."""

    def __init__(self, redis: ArqRedis, cipher: JobCipher, job_id: str, mark: str, sizes: list[int], size: int) -> None:
        """`sizes`: the pieces of each string; `size`: bytes of the stored input."""
        self._redis, self._cipher, self._job_id = redis, cipher, job_id
        self.mark, self.sizes, self.size = mark, sizes, size

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield them in pieces of at most 1 MiB. Raises ContentDamaged, also if they are removed meanwhile."""
        key, at = keys.job_input(self._job_id), len(media.KIND)
        for number in range(sum(self.sizes)):
            start, end = media.piece_bounds(self._job_id, at, await self._range(key, at, at + 3))
            yield media.open_piece(self._cipher, number, await self._range(key, start, end - 1))
            at = end

    async def _range(self, key: str, start: int, end: int) -> bytes:
        async with store_errors("read the input", key):
            found: bytes = await self._redis.getrange(key, start, end)
        return found


async def load_parts(redis: ArqRedis, job_id: str) -> tuple[dict[str, Any] | None, KeptMedia | None]:
    """Return (the input with placeholders for long images and files, these or None); None for both if it was removed.

    Raises as `load`.
    """
    key = keys.job_input(job_id)
    async with store_errors("read the input", key):
        size = int(await redis.strlen(key))
        raw = await _without_pieces(redis, key)
    has_media = media.has_media(raw)
    given = (await unseal_by_job(redis, INPUT, {job_id: media.head_of(raw) if has_media else raw})).get(job_id)
    if not has_media or not isinstance(given, dict):
        return given, None
    content, mark, sizes = media.parts_of(job_id, given)
    return content, KeptMedia(redis, await _cipher_of(redis, job_id, raw), job_id, mark, sizes, size)


async def _without_pieces(redis: ArqRedis, key: str) -> bytes:
    """Return a stored input; of one with long strings the first byte and the end, where the rest is."""
    raw: bytes = await redis.getrange(key, 0, _READ_AT_FIRST - 1)
    if len(raw) < _READ_AT_FIRST:
        return raw
    if not media.has_media(raw):
        rest: bytes = await redis.getrange(key, _READ_AT_FIRST, -1)
        return raw + rest
    length = media.head_length(await redis.getrange(key, -4, -1))
    end: bytes = await redis.getrange(key, -length, -1)
    return media.KIND + end
