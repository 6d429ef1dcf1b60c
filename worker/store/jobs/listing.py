"""List an app's jobs, newest first, with filters and a cursor that stays valid while jobs come and go.

What a page costs depends on its length, not on how many jobs there are: the filters' indexes are kept by every commit,
the smallest of them is read, and its jobs are looked up in the others (`search.lua`). Where filters rarely match
together, a page ends after a bounded search, with fewer jobs or none, and its cursor goes on.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, Refused
from worker.jobs.record import Job
from worker.store import keys
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets
from worker.store.connection.pool import keyring_of
from worker.store.envelope import MasterKeyring
from worker.store.errors import store_errors
from worker.store.jobs import provider_ids
from worker.store.jobs.index_search import IndexSearch
from worker.store.jobs.list_filters import ListFilters, fits, indexes_of
from worker.store.jobs.stored_job import StoredJob, stored_of, unreadable_of
from worker.store.jobs.unreadable_records import missing_key, read_job, read_unchecked
from worker.store.values import pipeline_replies, report_unreadable

LoadJob = Callable[[str], Awaitable[StoredJob | None]]
MAX_READ: Final = 2_000
"""Members of an index that one page reads at most."""
MAX_COUNTED: Final = 10_000
"""Members of an index that a count reads at most."""
_MAX_BY_ID: Final = 10
_PER_ROW, _BATCH = 16, 250
"""A search with several filters reads so many members for each job of the page, then so many at a time."""
_CLOCK: Final = Clock()


def cursor_of(job_id: str) -> str:
    """Return the opaque cursor that continues after this job."""
    return base64.urlsafe_b64encode(job_id.encode()).decode().rstrip("=")


def last_seen(cursor: str | None) -> str:
    """Return the id of the job in a cursor; "" without one. Raises Refused for a cursor that Vigil did not make."""
    if not cursor:
        return ""
    try:
        job_id = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        job_id = ""
    if not ids.is_job_id(job_id):
        raise Refused("invalid_cursor", "This cursor is not one that a list gave; start without it.", 422)
    return job_id


async def list_jobs(
    redis: ArqRedis, app: str, filters: ListFilters, limit: int, cursor: str | None, load: LoadJob | None = None
) -> tuple[list[StoredJob], str | None]:
    """Return up to `limit` jobs, newest first, and the cursor of the next page or None.

    `load` reads a job whose record is unreadable or gone here; without it, or when it fails too, the job is left out.
    An index of another type is set aside, for a worker to rebuild it, and the jobs are found by the other filters. That
    of all jobs is rebuilt at once.
    """
    last = last_seen(cursor)
    if filters.names_provider_id:
        return await _list_by_provider_id(redis, app, filters, limit, last, load), None
    search = await search_of(redis, app, filters, last)
    found: list[StoredJob] = []
    size = limit + 1 if search.is_simple else min(_BATCH, _PER_ROW * limit)  # a single filter needs no second read
    while search.read < MAX_READ and not search.ended:
        names = await search.next(min(size, MAX_READ - search.read))
        while names and len(found) <= limit:  # read the records of no more jobs than the page needs
            part, names = names[: limit + 1 - len(found)], names[limit + 1 - len(found) :]
            rows = await _load(redis, part, load)
            await search.forget([name for name in part if name in rows and rows[name] is None])
            found += [stored for stored in rows.values() if stored is not None and fits(stored, app, filters)]
        if len(found) > limit:
            return found[:limit], cursor_of(found[limit - 1].job.id)
        size = _BATCH
    return found, None if search.ended or not search.last else cursor_of(search.last)


async def count_jobs(redis: ArqRedis, app: str, filters: ListFilters) -> tuple[int, bool]:
    """Return (how many of the app's jobs fit, whether these are all): by the indexes, after a bounded search."""
    if filters.names_provider_id:
        return len(await _list_by_provider_id(redis, app, filters, _MAX_BY_ID, "", None)), True
    search = await search_of(redis, app, filters, "")
    found = await search.count()
    if found is not None:
        return found, True
    found = 0
    while search.read < MAX_COUNTED and not search.ended:
        found += len(await search.next(_BATCH))
    return found, search.ended


async def search_of(redis: ArqRedis, app: str, filters: ListFilters, last: str) -> IndexSearch:
    """Return a search for the ids of the app's jobs that fit, after the job `last`."""
    secret = await KeptSecrets(redis, _CLOCK).get(DIGEST) if filters.metadata else b""
    low = str(to_ms(filters.created_after)) if filters.created_after else "-inf"
    high = f"({to_ms(filters.created_before)}" if filters.created_before else "+inf"
    if last and filters.created_before and ids.time_ms(last) >= to_ms(filters.created_before):
        last = ""
    return IndexSearch(redis, app, indexes_of(app, filters, secret), (low, high), last)


async def _list_by_provider_id(
    redis: ArqRedis, app: str, filters: ListFilters, limit: int, last: str, load: LoadJob | None
) -> list[StoredJob]:
    """Return the jobs of a request or a response of the provider: that id leads to them without an index."""
    named = [await provider_ids.job_of(redis, filters.request_id, None)] if filters.request_id else []
    if filters.response_id is not None:
        named += [await provider_ids.job_of(redis, None, filters.response_id), ids.job_id_of(filters.response_id)]
    names = sorted({name for name in named if name and ids.is_job_id(name)}, reverse=True)
    rows = await _load(redis, [name for name in names if not last or name < last], load)
    return [one for one in rows.values() if one is not None and fits(one, app, filters) and _in_time(one.job, filters)][
        :limit
    ]


def _in_time(job: Job, filters: ListFilters) -> bool:
    at, after, before = to_ms(job.created_at), filters.created_after, filters.created_before
    return (after is None or at >= to_ms(after)) and (before is None or at < to_ms(before))


async def _load(redis: ArqRedis, names: Sequence[str], load: LoadJob | None) -> dict[str, StoredJob | None]:
    """Return each job, None where it is gone; leave out what can't be read."""
    if not names:
        return {}
    job_keys = [keys.job(name) for name in names]
    async with store_errors("list jobs"), redis.pipeline(transaction=False) as pipe:
        for job_key in job_keys:
            pipe.hmget(job_key, "rec", "mac", "priv", "ntc", "waits")
        rows = await pipeline_replies(pipe, job_keys)
    keyring, out = keyring_of(redis), dict[str, StoredJob | None]()
    for name, row in zip(names, rows, strict=True):
        try:
            if row is not None and row[0]:
                if missing_key(keyring.macs, row[1]) is not None:
                    out[name] = unreadable_of(read_unchecked(name, row[0]), row[3], row[4])
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


def _stored(
    keyring: MasterKeyring, job: Job, private: bytes | None, notices: bytes | None, waits: bytes | None
) -> StoredJob:
    """Return the job; content that can't be read is marked, so that it does not hide the other jobs."""
    try:
        return stored_of(keyring, job, private, notices, waits)
    except (KeyMissing, ContentDamaged):
        return unreadable_of(job, notices, waits)
