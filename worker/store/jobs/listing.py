"""List an app's jobs, newest first, with filters and a cursor that stays valid while jobs come and go."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from arq.connections import ArqRedis

from worker.clock import to_ms
from worker.jobs import ids
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, Refused
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.envelope import MasterKeyring
from worker.store.errors import store_errors
from worker.store.jobs.stored_job import StoredJob, stored_of, unreadable_of
from worker.store.jobs.unreadable_records import missing_key, read_job, read_unchecked
from worker.store.values import pipeline_replies, report_unreadable

LoadJob = Callable[[str], Awaitable[StoredJob | None]]
_BATCH = 100
_MAX_READ = 2_000  # two filters that rarely match together end the page early instead of reading the whole store


@dataclass(frozen=True, slots=True)
class ListFilters:
    """The filters of a list; `created_after` is inclusive, `created_before` exclusive."""

    status: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def cursor_of(job_id: str) -> str:
    """Return the opaque cursor that continues after this job."""
    return base64.urlsafe_b64encode(job_id.encode()).decode().rstrip("=")


def _last_seen(cursor: str) -> tuple[int, str]:
    """Return (creation time in ms, id) of the job in a cursor. Raises Refused for a cursor that Vigil did not make."""
    try:
        job_id = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        job_id = ""
    if not ids.is_job_id(job_id):
        raise Refused("invalid_cursor", "This cursor is not one that a list gave; start without it.", 422)
    return ids.time_ms(job_id), job_id


async def list_jobs(
    redis: ArqRedis, app: str, filters: ListFilters, limit: int, cursor: str | None, load: LoadJob | None = None
) -> tuple[list[StoredJob], str | None]:
    """Return up to `limit` jobs, newest first, and the cursor of the next page or None.

    `load` reads a job whose record is unreadable or gone here; without it, or when it fails too, the job is left out.
    An index of another type is set aside, for a worker to rebuild it, and the jobs are read from the index of all. That
    one is rebuilt at once.
    """
    index = _index_for(app, filters)
    try:
        return await _list(redis, app, index, filters, limit, cursor, load)
    except RecordUnreadable as error:
        if error.key != index:
            raise
        async with store_errors("set an index aside", index):
            await script(redis, "lifecycle/check_types")(keys=[index], args=["zset"])
        report_unreadable(error)
        if index == keys.index(app):
            await rebuild_index_of_all(redis, app)
        return await _list(redis, app, keys.index(app), filters, limit, cursor, load)


async def rebuild_index_of_all(redis: ArqRedis, app: str) -> None:
    """Add every job of the indexes by status to the app's index of all."""
    names = [keys.index(app), *(keys.index(app, "status", status) for status in Status)]
    async with store_errors("rebuild an index"):
        await redis.zunionstore(names[0], names, aggregate="MAX")


async def _list(
    redis: ArqRedis, app: str, index: str, filters: ListFilters, limit: int, cursor: str | None, load: LoadJob | None
) -> tuple[list[StoredJob], str | None]:
    """Return what `list_jobs` does, read from this index, whose members are believed only if their record agrees."""
    last = ""
    low = f"({to_ms(filters.created_after) - 1}" if filters.created_after else "-inf"
    high: int | str = f"({to_ms(filters.created_before)}" if filters.created_before else "+inf"
    if cursor:
        at, last = _last_seen(cursor)
        if not filters.created_before or at < to_ms(filters.created_before):
            high = at
    found: list[StoredJob] = []
    offset, read, size = 0, 0, limit + 1  # without a second filter the first read is enough
    async with store_errors("list jobs", index):
        while read < _MAX_READ:
            members = await redis.zrevrangebyscore(index, high, low, start=offset, num=size)
            names = [row.decode(errors="replace") for row in members]
            invalid = [row for row, name in zip(members, names, strict=True) if not ids.is_job_id(name)]
            if invalid:
                await redis.zrem(index, *invalid)  # Vigil writes no such members: they name no job
                continue
            fresh = [name for name in names if not last or name < last]
            if names:  # continue after the last name: a count alone would shift when jobs come and go
                last, at = min(last or names[-1], names[-1]), ids.time_ms(names[-1])
                offset, high, read = (offset + len(names) if at == high else 0), at, read + len(names)
            rows = await _load(redis, fresh, load)
            gone = [name for name in fresh if name in rows and rows[name] is None]
            if gone:
                await redis.zrem(index, *gone)  # their retention time is over
                offset = max(0, offset - len(gone))
            found += [stored for stored in rows.values() if stored is not None and _fits(stored, app, filters)]
            if len(found) > limit:
                return found[:limit], cursor_of(found[limit - 1].job.id)
            if len(names) < size:
                return found, None
            size = _BATCH
    return found, cursor_of(last)


def _index_for(app: str, filters: ListFilters) -> str:
    """Return the narrowest index for the filters."""
    if filters.safety_identifier is not None:
        return keys.index(app, "user", filters.safety_identifier)
    if filters.status is not None:
        return keys.index(app, "status", filters.status)
    if filters.model is not None:
        return keys.index(app, "model", filters.model)
    return keys.index(app)


async def _load(redis: ArqRedis, names: list[str], load: LoadJob | None) -> dict[str, StoredJob | None]:
    """Return each job, None where it is gone; leave out what can't be read."""
    if not names:
        return {}
    job_keys = [keys.job(name) for name in names]
    async with redis.pipeline(transaction=False) as pipe:
        for job_key in job_keys:
            pipe.hmget(job_key, "rec", "mac", "priv", "ntc")
        rows = await pipeline_replies(pipe, job_keys)
    keyring, out = keyring_of(redis), dict[str, StoredJob | None]()
    for name, row in zip(names, rows, strict=True):
        try:
            if row is not None and row[0]:
                if missing_key(keyring.macs, row[1]) is not None:
                    out[name] = unreadable_of(read_unchecked(name, row[0]), row[3])
                else:
                    out[name] = _stored(keyring, read_job(keyring.macs, name, row[0], row[1]), *row[2:])
                continue
        except RecordUnreadable as error:
            report_unreadable(error)
        found = await _load_fallback(name, load)
        if found is not None or (row is not None and not row[0]):
            out[name] = found
    return out


async def _load_fallback(name: str, load: LoadJob | None) -> StoredJob | None:
    """Load a job whose record can't be read, with what is known of it."""
    try:
        return await load(name) if load is not None else None
    except RecordUnreadable as error:
        report_unreadable(error)
    except (KeyMissing, ContentDamaged):
        pass
    return None


def _stored(keyring: MasterKeyring, job: Job, private: bytes | None, notices: bytes | None) -> StoredJob:
    """Return the job; content that can't be read is marked, so that it does not hide the other jobs."""
    try:
        return stored_of(keyring, job, private, notices)
    except (KeyMissing, ContentDamaged):
        return unreadable_of(job, notices)


def _fits(stored: StoredJob, app: str, filters: ListFilters) -> bool:
    job = stored.job
    return (
        job.app == app
        and (filters.status is None or job.status == filters.status)
        and (filters.model is None or job.requested_model == filters.model)
        and (filters.safety_identifier is None or job.safety_identifier == filters.safety_identifier)
    )
