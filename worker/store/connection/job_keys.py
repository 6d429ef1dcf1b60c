"""Find the cipher of a job: cached by this process, else opened with the wrapped key in the job's private part."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from arq.connections import ArqRedis

from worker.jobs.errors import ContentDamaged, ContentNotSealed
from worker.store import codec, keys
from worker.store.connection.pool import keyring_of
from worker.store.envelope import INPUT, PRIVATE, JobCipher
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies

_MAX_BYTES_AT_ONCE: Final = 256 * 1024  # that are decoded before the event loop serves others


async def unseal_by_job(redis: ArqRedis, field: str, rows: Mapping[str, bytes | None]) -> dict[str, Any]:
    """Decrypt each job's value; values and jobs that no longer exist are left out.

    Takes one more round trip for jobs whose cipher is not cached. Raises KeyMissing, ContentDamaged, ContentNotSealed.
    """
    keyring, stored = keyring_of(redis), {job_id: raw for job_id, raw in rows.items() if raw}
    plain = [job_id for job_id, raw in stored.items() if codec.is_plain(raw)]
    if plain and keyring.enabled and not keyring.accepts_plain:
        raise ContentNotSealed(plain[0], field)
    # with keys, the job's own cipher says whether its content may be plain
    ciphers = {} if keyring.enabled else {job_id: keyring.plain("", job_id) for job_id in plain}
    ciphers |= await ciphers_of(redis, [job_id for job_id in stored if job_id not in ciphers])
    found, size = dict[str, Any](), 0
    for job_id, raw in stored.items():
        if job_id not in ciphers:
            continue
        found[job_id] = ciphers[job_id].unseal(field, raw)
        size += len(raw)
        if size > _MAX_BYTES_AT_ONCE:
            size = 0
            await asyncio.sleep(0)
    return {job_id: require_object(job_id, field, content) for job_id, content in found.items()}


def require_object(job_id: str, field: str, content: Any) -> Any:
    """Return the content, an object or None; the field INPUT needs a member `input`. Raises ContentDamaged."""
    fits = content is None or (isinstance(content, dict) and (field != INPUT or "input" in content))
    if not fits:
        raise ContentDamaged(job_id, field)
    return content


async def ciphers_of(redis: ArqRedis, job_ids: Iterable[str], *, plain_too: bool = False) -> dict[str, JobCipher]:
    """Return each job's cipher; jobs that no longer exist are left out.

    `plain_too`: accept a cached cipher without a key, although the job may have got one since.
    """
    keyring, found, unknown = keyring_of(redis), dict[str, JobCipher](), list[str]()
    for job_id in job_ids:
        cipher = keyring.cached(job_id)
        if cipher is not None and (plain_too or cipher.header):
            found[job_id] = cipher
        else:
            unknown.append(job_id)
    if not unknown:
        return found
    async with store_errors("find the key of a job"), redis.pipeline(transaction=False) as pipe:
        for job_id in unknown:
            pipe.hmget(keys.job(job_id), "app", "priv")
        rows = await pipeline_replies(pipe, map(keys.job, unknown))
    for job_id, row in zip(unknown, rows, strict=True):
        if row is not None and row[0]:
            found[job_id] = keyring.open(row[0].decode(errors="replace"), job_id, PRIVATE, row[1])[0]
    return found


async def ciphers_for_writing(redis: ArqRedis, job_ids: Iterable[str]) -> dict[str, JobCipher]:
    """Return ciphers to encrypt new content with; no round trip when encryption is off, or all are cached."""
    keyring, names = keyring_of(redis), list(job_ids)
    found = await ciphers_of(redis, names, plain_too=True) if keyring.enabled else {}
    return {job_id: found.get(job_id) or keyring.ephemeral(job_id) for job_id in names}
