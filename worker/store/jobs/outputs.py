"""Read outputs wherever they are, in Redis or in the archive.

Of several, why one can't be read is a value, so that it hides no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.jobs.errors import ArchiveUnavailable, ContentDamaged, KeyMissing
from worker.store import keys
from worker.store.connection.archive_waits import waiting_for_archive
from worker.store.connection.job_keys import ciphers_of, require_object, unseal_by_job
from worker.store.envelope import OUTPUT, JobCipher
from worker.store.errors import store_errors
from worker.store.jobs.archived_output import HEAD_BYTES, is_archived, place_of
from worker.store.jobs.output_archive import OutputArchive, archive_of

OutputFault = KeyMissing | ContentDamaged | ArchiveUnavailable
_FAULTS: Final = (KeyMissing, ContentDamaged, ArchiveUnavailable)
_MAX_AT_ONCE: Final = 8
_MIN_S: Final = 0.1  # with less time left nothing is asked of the archive


async def read_output(redis: ArqRedis, job_id: str) -> dict[str, Any] | None:
    """Return a job's output, or None if there is none. Raises KeyMissing, ContentDamaged, ArchiveUnavailable."""
    key = keys.job_output(job_id)
    async with store_errors("read the output", key):
        raw = await redis.get(key)
    if not is_archived(raw):
        return (await unseal_by_job(redis, OUTPUT, {job_id: raw})).get(job_id)
    found = (await _archived(redis, {job_id: raw}, None)).get(job_id)
    if isinstance(found, _FAULTS):
        raise found
    return found


async def read_outputs(
    redis: ArqRedis, job_ids: Sequence[str], *, seconds: float | None = None
) -> dict[str, dict[str, Any] | OutputFault]:
    """Return the outputs by job, or why one can't be read; jobs without one are left out.

    `seconds`: for what is in the archive, in all; what has not come by then is ArchiveUnavailable.
    """
    if not job_ids:
        return {}
    async with store_errors("read the outputs"):
        rows = await redis.mget([keys.job_output(job_id) for job_id in job_ids])
    stored = {job_id: raw for job_id, raw in zip(job_ids, rows, strict=True) if raw}
    here = {job_id: raw for job_id, raw in stored.items() if not is_archived(raw)}
    found = await _unsealed(redis, here)
    if len(here) < len(stored):
        found |= await _archived(redis, {one: raw for one, raw in stored.items() if one not in here}, seconds)
    return found


async def output_bytes(redis: ArqRedis, job_id: str) -> int:
    """Return about how many bytes the output has, wherever it is; 0 if there is none."""
    key = keys.job_output(job_id)
    async with store_errors("read the output", key), redis.pipeline(transaction=False) as pipe:
        pipe.strlen(key)
        pipe.getrange(key, 0, HEAD_BYTES - 1)
        length, head = await pipe.execute()
    place = place_of(head)
    return int(length) if place is None else place[1]


async def _unsealed(redis: ArqRedis, rows: Mapping[str, bytes]) -> dict[str, dict[str, Any] | OutputFault]:
    """Return the contents of values of Redis; looks for those that can't be read by halves."""
    try:
        return {**await unseal_by_job(redis, OUTPUT, rows)}
    except (KeyMissing, ContentDamaged) as error:
        if len(rows) == 1:
            return dict.fromkeys(rows, error)
    names = list(rows)
    half = len(names) // 2
    parts = [{name: rows[name] for name in part} for part in (names[:half], names[half:])]
    return await _unsealed(redis, parts[0]) | await _unsealed(redis, parts[1])


async def _archived(
    redis: ArqRedis, rows: Mapping[str, bytes], seconds: float | None
) -> dict[str, dict[str, Any] | OutputFault]:
    """Return the contents of outputs that are in the archive."""
    found: dict[str, dict[str, Any] | OutputFault] = {}
    try:
        ciphers = await ciphers_of(redis, rows)
    except (KeyMissing, ContentDamaged):  # one by one, to know of which
        ciphers = dict[str, JobCipher]()
        for job_id in rows:
            try:
                ciphers |= await ciphers_of(redis, [job_id])
            except (KeyMissing, ContentDamaged) as error:
                found[job_id] = error
    archive = archive_of(redis)
    if archive is None:
        missing = ArchiveUnavailable("an output is in the archive, and VIGIL_ARCHIVE is not set here")
        return found | dict.fromkeys(ciphers, missing)
    places, loop = asyncio.Semaphore(_MAX_AT_ONCE), asyncio.get_running_loop()
    until = loop.time() + (seconds or archive.read_seconds)

    async def fetch(job_id: str) -> tuple[str, dict[str, Any] | OutputFault]:
        async with places:
            left = until - loop.time()
            if left < _MIN_S:
                return job_id, ArchiveUnavailable("the archive took too long")
            return job_id, await _fetched(archive, ciphers[job_id], job_id, rows[job_id], left)

    async with waiting_for_archive():
        return found | dict(await asyncio.gather(*map(fetch, ciphers)))


async def _fetched(
    archive: OutputArchive, cipher: JobCipher, job_id: str, raw: bytes, seconds: float | None
) -> dict[str, Any] | OutputFault:
    try:
        sealed = await archive.read(cipher, job_id, raw, seconds=seconds)
        content: dict[str, Any] = require_object(job_id, OUTPUT, cipher.unseal(OUTPUT, sealed))
    except (ContentDamaged, ArchiveUnavailable) as error:
        return error
    return content
