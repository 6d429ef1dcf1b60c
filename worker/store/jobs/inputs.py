"""Reads the inputs of jobs: whole, or without their long images and files, which no view of a job shows."""

from __future__ import annotations

from typing import Any

from arq.connections import ArqRedis

from worker.store import keys, media
from worker.store.connection.job_keys import ciphers_of, unseal_by_job
from worker.store.connection.pool import keyring_of
from worker.store.envelope import INPUT
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
    keyring = keyring_of(redis)
    cipher = keyring.plain("", job_id) if media.is_plain(raw) else (await ciphers_of(redis, [job_id]))[job_id]
    restored: dict[str, Any] = await media.open_media(cipher, job_id, raw, given)
    return restored


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
