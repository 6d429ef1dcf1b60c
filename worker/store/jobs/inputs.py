"""Reads the inputs of jobs: whole, or without their long images and files, which no view of a job shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from arq.connections import ArqRedis

from worker.store import keys, media
from worker.store.connection.job_keys import ciphers_of, unseal_by_job
from worker.store.connection.pool import keyring_of
from worker.store.envelope import INPUT, JobCipher
from worker.store.errors import store_errors

_READ_AT_FIRST = 64 * 1024
"""Bytes of an input of which only the first part may be needed."""


class MarkedInput(NamedTuple):
    """An input in which placeholders stand for its long strings, which are read piece by piece."""

    given: dict[str, Any]
    mark: str = ""
    sizes: Sequence[int] = ()
    """How many pieces each string has; none without long strings."""
    size: int = 0
    """Bytes of all, as stored."""
    cipher: Any = None
    """The job's JobCipher, if there are pieces."""


async def load(redis: ArqRedis, job_id: str, *, whole: bool = True) -> dict[str, Any] | None:
    """Return the input for the model, or None if it was removed; unless `whole`, with null for long strings.

    Raises KeyMissing, ContentDamaged, ContentNotSealed.
    """
    key = keys.job_input(job_id)
    async with store_errors("read the input", key):
        raw = await redis.get(key) if whole else await _without_pieces(redis, key)
    given = await _opened(redis, job_id, raw)
    if given is None or not media.has_media(raw):
        return given
    if not whole:
        found: dict[str, Any] = media.without_media(job_id, given)
        return found
    restored: dict[str, Any] = await media.open_media(await _cipher(redis, job_id, raw), job_id, raw, given)
    return restored


async def load_marked(redis: ArqRedis, job_id: str) -> MarkedInput | None:
    """Return the input with placeholders for its long strings, or None if it was removed. Raises as `load`."""
    key = keys.job_input(job_id)
    async with store_errors("read the input", key):
        raw = await _without_pieces(redis, key)
    given = await _opened(redis, job_id, raw)
    if given is None:
        return None
    if not media.has_media(raw):
        return MarkedInput(given)
    async with store_errors("read the input", key):
        size = int(await redis.strlen(key))
    return MarkedInput(*media.marked(job_id, given), size, await _cipher(redis, job_id, raw))


async def pieces_of(redis: ArqRedis, job_id: str, found: MarkedInput) -> AsyncIterator[bytes]:
    """Yield the pieces of an input's long strings, each read when it is needed. Raises ContentDamaged."""
    key, at = keys.job_input(job_id), len(media.KIND)
    for number in range(sum(found.sizes)):
        async with store_errors("read the input", key):
            length = media.piece_length(job_id, await redis.getrange(key, at, at + media.LENGTH_BYTES - 1))
            at += media.LENGTH_BYTES
            sealed = await redis.getrange(key, at, at + length - 1)
        at += length
        yield media.open_piece(found.cipher, number, sealed)


async def _opened(redis: ArqRedis, job_id: str, raw: bytes) -> dict[str, Any] | None:
    """Return an input as its head has it, or None if there is none."""
    head = media.head_of(raw) if media.has_media(raw) else raw
    return (await unseal_by_job(redis, INPUT, {job_id: head})).get(job_id)


async def _cipher(redis: ArqRedis, job_id: str, raw: bytes) -> JobCipher:
    keyring = keyring_of(redis)
    return keyring.plain("", job_id) if media.is_plain(raw) else (await ciphers_of(redis, [job_id]))[job_id]


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
