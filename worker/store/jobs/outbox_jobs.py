"""Read the jobs and events behind entries of the outbox, many in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from arq.connections import ArqRedis

from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.jobs.record import Job
from worker.store import keys
from worker.store.connection.job_keys import ciphers_for_writing, require_object
from worker.store.connection.pool import keyring_of
from worker.store.envelope import PRIVATE, JobCipher, MasterKeyring
from worker.store.errors import store_errors
from worker.store.jobs.stored_job import StoredJob
from worker.store.jobs.trail_rows import first_row_is, unfolded
from worker.store.jobs.unreadable_records import missing_key, parse_events, read_job, read_unchecked
from worker.store.values import pipeline_replies, report_unreadable


class OutboxJob(NamedTuple):
    """A job as it is now: the record, what only its app may see, and the cipher for its messages."""

    job: Job
    private: dict[str, Any]
    cipher: JobCipher
    unreadable: KeyMissing | ContentDamaged | None = None


async def load_outbox_jobs(redis: ArqRedis, job_ids: Sequence[str]) -> dict[str, OutboxJob]:
    """Return the jobs; leave out those that are gone or can't be read."""
    async with store_errors("read the jobs"), redis.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hmget(keys.job(job_id), "rec", "mac", "priv")
        rows = await pipeline_replies(pipe, map(keys.job, job_ids))
    keyring, found = keyring_of(redis), dict[str, OutboxJob]()
    for job_id, row in zip(job_ids, rows, strict=True):
        if row is not None and row[0]:
            try:
                kid = missing_key(keyring.macs, row[1])
                if kid is None:
                    found[job_id] = _outbox_job(keyring, read_job(keyring.macs, job_id, row[0], row[1]), row[2])
                else:
                    job = read_unchecked(job_id, row[0])
                    found[job_id] = OutboxJob(job, {}, keyring.ephemeral(job_id), KeyMissing(kid))
            except RecordUnreadable as error:
                report_unreadable(error)
    return found


async def as_outbox_job(redis: ArqRedis, stored: StoredJob) -> OutboxJob:
    """Convert a job that was read another way, because its record can't be read."""
    ciphers = await ciphers_for_writing(redis, [stored.job.id])
    return OutboxJob(stored.job, stored.private, ciphers[stored.job.id])


async def load_event_ranges(redis: ArqRedis, ranges: Sequence[tuple[str, int, int]]) -> list[list[dict[str, Any]]]:
    """Return, for each (job id, from seq, to seq), those events of the job."""
    async with store_errors("read the trails"), redis.pipeline(transaction=False) as pipe:
        for job_id, first, last in ranges:
            pipe.lrange(keys.trail(job_id), first - 1, last - 1)
        rows = await pipeline_replies(pipe, (keys.trail(job_id) for job_id, _, _ in ranges))
        for number, (job_id, first, last) in enumerate(ranges):
            if rows[number] is not None and not first_row_is(rows[number], first):  # its events are folded by now
                whole = await redis.lrange(keys.trail(job_id), 0, -1)
                rows[number] = unfolded(whole)[first - 1 : last]
    macs = keyring_of(redis).macs
    return [parse_events(macs, one[0], row or ()) for one, row in zip(ranges, rows, strict=True)]


def _outbox_job(keyring: MasterKeyring, job: Job, private: bytes | None) -> OutboxJob:
    try:
        cipher, content = keyring.open(job.app, job.id, PRIVATE, private)
        return OutboxJob(job, require_object(job.id, PRIVATE, content) or {}, cipher)
    except (KeyMissing, ContentDamaged) as error:
        return OutboxJob(job, {}, keyring.ephemeral(job.id), error)
