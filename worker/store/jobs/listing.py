"""Lists of an app's jobs, newest first, with filters and a cursor that stays true while jobs come and go."""

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
from worker.store import keys
from worker.store.connection.errors import store_errors
from worker.store.connection.pool import keyring_of
from worker.store.envelope import MasterKeyring
from worker.store.jobs.stored_job import StoredJob, stored_of, unreadable_of
from worker.store.jobs.unreadable_records import read_job
from worker.store.values import pipeline_replies, report_unreadable

LoadJob = Callable[[str], Awaitable[StoredJob | None]]
_BATCH = 100
_MAX_READ = 2_000  # an unlucky pair of filters ends the page early rather than reading the whole store


@dataclass(frozen=True, slots=True)
class ListFilters:
    """What a list is narrowed to; times are inclusive below and exclusive above."""

    status: str | None = None
    model: str | None = None
    safety_identifier: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def cursor_of(job_id: str) -> str:
    """The opaque cursor that goes on after this job."""
    return base64.urlsafe_b64encode(job_id.encode()).decode().rstrip("=")


def _last_seen(cursor: str) -> tuple[int, str]:
    """(creation time in ms, id) of the job behind a cursor; raises Refused for one that we did not make."""
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
    """(up to `limit` jobs, newest first; the cursor of the next page or None).

    `load`: how a job is read whose record can't be read here or is gone; without it, or when it can't be read either,
    it is left out.
    """
    index, last = _index_for(app, filters), ""
    low = f"({to_ms(filters.created_after) - 1}" if filters.created_after else "-inf"
    high: int | str = f"({to_ms(filters.created_before)}" if filters.created_before else "+inf"
    if cursor:
        at, last = _last_seen(cursor)
        if not filters.created_before or at < to_ms(filters.created_before):
            high = at
    found: list[StoredJob] = []
    offset, read, size = 0, 0, limit + 1  # without a second filter the first look is enough
    async with store_errors("list jobs", index):
        while read < _MAX_READ:
            members = await redis.zrevrangebyscore(index, high, low, start=offset, num=size)
            names = [row.decode(errors="replace") for row in members]
            odd = [row for row, name in zip(members, names, strict=True) if not ids.is_job_id(name)]
            if odd:
                await redis.zrem(index, *odd)  # nobody writes such: they name no job
                continue
            fresh = [name for name in names if not last or name < last]
            if names:  # go on behind the last name: a mere count would slip when jobs come and go meanwhile
                last, at = min(last or names[-1], names[-1]), ids.time_ms(names[-1])
                offset, high, read = (offset + len(names) if at == high else 0), at, read + len(names)
            rows = await _load(redis, fresh, load)
            gone = [name for name in fresh if name in rows and rows[name] is None]
            if gone:
                await redis.zrem(index, *gone)  # their time to be kept is over
                offset = max(0, offset - len(gone))
            found += [stored for stored in rows.values() if stored is not None and _fits(stored, filters)]
            if len(found) > limit:
                return found[:limit], cursor_of(found[limit - 1].job.id)
            if len(names) < size:
                return found, None
            size = _BATCH
    return found, cursor_of(last)


def _index_for(app: str, filters: ListFilters) -> str:
    """The narrowest index that serves the filters."""
    if filters.safety_identifier is not None:
        return keys.index(app, "user", filters.safety_identifier)
    if filters.status is not None:
        return keys.index(app, "status", filters.status)
    if filters.model is not None:
        return keys.index(app, "model", filters.model)
    return keys.index(app)


async def _load(redis: ArqRedis, names: list[str], load: LoadJob | None) -> dict[str, StoredJob | None]:
    """Each job, None where it is gone; what can't be read is missing."""
    if not names:
        return {}
    places = [keys.job(name) for name in names]
    async with redis.pipeline(transaction=False) as pipe:
        for place in places:
            pipe.hmget(place, "rec", "priv", "ntc")
        rows = await pipeline_replies(pipe, places)
    keyring, out = keyring_of(redis), dict[str, StoredJob | None]()
    for name, row in zip(names, rows, strict=True):
        try:
            if row is not None and row[0]:
                out[name] = _stored(keyring, read_job(name, row[0]), *row[1:])
                continue
        except RecordUnreadable as error:
            report_unreadable(error)
        found = await _load_fallback(name, load)
        if found is not None or (row is not None and not row[0]):
            out[name] = found
    return out


async def _load_fallback(name: str, load: LoadJob | None) -> StoredJob | None:
    """A job whose record can't be read as it is, as it may be shown all the same."""
    try:
        return await load(name) if load is not None else None
    except RecordUnreadable as error:
        report_unreadable(error)
    except (KeyMissing, ContentDamaged):
        pass
    return None


def _stored(keyring: MasterKeyring, job: Job, private: bytes | None, notices: bytes | None) -> StoredJob:
    """One job whose content can't be read must not hide the others."""
    try:
        return stored_of(keyring, job, private, notices)
    except (KeyMissing, ContentDamaged):
        return unreadable_of(job, notices)


def _fits(stored: StoredJob, filters: ListFilters) -> bool:
    job = stored.job
    return (
        (filters.status is None or job.status == filters.status)
        and (filters.model is None or job.requested_model == filters.model)
        and (filters.safety_identifier is None or job.safety_identifier == filters.safety_identifier)
    )
