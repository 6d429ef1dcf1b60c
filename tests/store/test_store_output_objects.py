"""The objects of large outputs live as long as these: retention, deletion, holds, rotation, and the trail's word."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis
from builders import VAULT
from output_archives import LARGE, Archived, archived
from s3_server import S3Server

from worker.audit.report import Report
from worker.clock import Clock
from worker.jobs.errors import ContentDamaged
from worker.store import keys
from worker.store.audit.acts import Actor
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.archived_output import ObjectEntry, entry_of, place_of
from worker.store.jobs.repository import Jobs, RetentionTimes
from worker.store.lifecycle.erasure import Eraser, erase
from worker.store.lifecycle.key_rotation import KeyRotation
from worker.store.lifecycle.legal_holds import LegalHolds
from worker.store.lifecycle.record_verification import RecordVerification

pytestmark = pytest.mark.skipif(not VAULT.enabled, reason="nothing leaves Redis without encryption")
OLD, NEW = bytes([7]) * 32, bytes([8]) * 32
LEE = Actor("key_lee")


@pytest.fixture
async def kept(redis: ArqRedis, s3: S3Server, valkey_url: str) -> AsyncIterator[Archived]:
    async with archived(s3, valkey_url, MasterKeyring([OLD])) as made:
        yield made


async def swept(kept: Archived) -> int:
    """How many objects are left after everything was looked at once more."""
    await kept.make_due()
    await kept.objects.sweep()
    return len(await kept.listed())


async def next_look(kept: Archived) -> float:
    """Seconds until the only object is looked at again."""
    ((_, score),) = await kept.redis.zrange(keys.OUTPUT_OBJECTS, 0, -1, withscores=True)
    return float(score) / 1000 - kept.clock.now().timestamp()


async def expire(kept: Archived, job_id: str) -> None:
    """The job's retention time is over."""
    for name in (keys.job(job_id), keys.job_output(job_id), keys.job_input(job_id), keys.trail(job_id)):
        await kept.redis.pexpire(name, 1)
    while await kept.redis.exists(keys.job_output(job_id), keys.job(job_id)):
        pass


async def test_an_object_goes_when_its_job_expires_and_not_before(kept: Archived) -> None:
    job_id = await kept.completed()
    assert await swept(kept) == 1
    await kept.redis.expire(keys.job_output(job_id), 100)
    assert await swept(kept) == 1
    assert 90 < await next_look(kept) <= 100.1, "it is looked at when the output expires"
    await expire(kept, job_id)
    assert await swept(kept) == 0


async def test_a_shortened_retention_is_met_within_hours(kept: Archived) -> None:
    await kept.completed()
    assert await swept(kept) == 1
    assert await next_look(kept) <= 6 * 3600


async def test_a_legal_hold_keeps_the_object(kept: Archived) -> None:
    kept.jobs = Jobs(kept.redis, kept.clock, RetentionTimes(result=60))
    holds = LegalHolds(kept.redis, kept.clock, RetentionTimes(60))
    job_id = await kept.completed()
    await holds.place(job_id, actor=LEE, why="a case")
    assert await swept(kept) == 1
    assert await next_look(kept) > 3600, "nothing expires while it is held"
    await holds.release(job_id, actor=LEE, why="closed")
    assert await swept(kept) == 1
    assert await next_look(kept) < 61
    assert await kept.jobs.load_output(job_id) == LARGE


async def test_deleted_content_can_not_be_opened_even_where_the_bucket_keeps_it(
    redis: ArqRedis, s3: S3Server, valkey_url: str
) -> None:
    async with archived(s3, valkey_url, MasterKeyring([OLD]), undeletable=True) as kept:
        job_id = await kept.completed()
        reference = await kept.redis.get(keys.job_output(job_id))
        stored = await kept.jobs.load(job_id)
        assert stored is not None
        await erase(kept.redis, kept.jobs, stored, "deleted", "key_1")
        await kept.objects.sweep()
        assert len(await kept.listed()) == 1
        ((line, _),) = await kept.redis.zrange(keys.OUTPUT_OBJECTS, 0, -1, withscores=True)
        assert entry_of(line.decode()) == ObjectEntry(job_id, (place_of(reference) or ("", 0))[0], gone=True)
        assert 80_000 < await next_look(kept) <= 86_400, "a refused deletion is tried again a day later"
        await kept.redis.set(keys.job_output(job_id), reference)  # as who keeps all that was ever in Redis could
        fresh = connect(valkey_url, keyring=MasterKeyring([OLD]), archive=kept.archive)
        with pytest.raises(ContentDamaged):
            await Jobs(fresh, kept.clock).load_output(job_id)
        await fresh.aclose()


async def test_a_write_once_bucket_takes_outputs(redis: ArqRedis, s3: S3Server, valkey_url: str) -> None:
    async with archived(s3, valkey_url, MasterKeyring([OLD]), write_once=True) as kept:
        job_id = await kept.completed()
        assert await kept.jobs.load_output(job_id) == LARGE


async def test_an_answer_that_is_not_to_be_stored_takes_its_object_along(kept: Archived) -> None:
    job_id = await kept.completed(store=False)
    assert len(await kept.listed()) == 1
    await kept.redis.zadd(keys.ERASURE_DUE, {job_id: 0})
    await Eraser(kept.redis, kept.jobs, kept.clock).sweep()
    assert not await kept.redis.exists(keys.job_output(job_id))
    await kept.objects.sweep()
    assert await kept.listed() == []


async def test_an_erasure_without_the_archive_is_found_by_the_sweep(kept: Archived, valkey_url: str) -> None:
    job_id = await kept.completed()
    bare = connect(valkey_url, keyring=MasterKeyring([OLD]))
    jobs = Jobs(bare, Clock())
    stored = await jobs.load(job_id)
    assert stored is not None
    await erase(bare, jobs, stored, "deleted", "key_1")
    await bare.aclose()
    assert await swept(kept) == 0


async def test_after_a_rotation_objects_open_with_the_new_key_and_were_not_touched(
    kept: Archived, valkey_url: str
) -> None:
    job_id = await kept.completed()
    before = await kept.listed()
    both = connect(valkey_url, keyring=MasterKeyring([NEW, OLD]))
    counts = await KeyRotation(both).run()
    assert (counts["unreadable"], counts["changed_meanwhile"]) == (0, 0)
    new = connect(valkey_url, keyring=MasterKeyring([NEW]), archive=kept.archive)
    assert await Jobs(new, Clock()).load_output(job_id) == LARGE
    assert await kept.listed() == before
    for client in (both, new):
        await client.aclose()


async def test_the_trail_s_word_on_an_answer_holds_in_the_archive(kept: Archived, valkey_url: str) -> None:
    """`vigil audit verify --records` reads what is there, and tells what it could not read from what is wrong."""
    job_id = await kept.completed()

    async def found(redis: ArqRedis = kept.redis) -> tuple[list[str], int]:
        report = Report()
        await RecordVerification(redis, kept.clock).verify(report)
        return [fault.detail for fault in report.faults if job_id in fault.detail], report.compared[
            "content_unavailable"
        ]

    assert await found() == ([], 0)
    bare = connect(valkey_url, keyring=MasterKeyring([OLD]))
    assert await found(bare) == ([], 1)
    await bare.aclose()
    with kept.outage():
        assert await found() == ([], 1)
    (only,) = await kept.listed()
    raw = await kept.store.get(only.name, 10**6) or b""
    await kept.store.put(only.name, raw[:99] + bytes([raw[99] ^ 1]) + raw[100:])
    faults, _ = await found()
    assert len(faults) == 1
    assert "its answer can't be opened" in faults[0]
    await kept.store.delete(only.name)
    faults, _ = await found()
    assert "its answer can't be opened" in faults[0]
    await kept.redis.delete(keys.job_output(job_id))
    faults, _ = await found()
    assert "its answer is gone" in faults[0]


async def test_an_older_answer_of_the_same_job_is_not_taken_for_the_last(kept: Archived) -> None:
    """Who can write to Redis and the bucket puts back what the job's own key once sealed: the trail knows better."""
    job_id, token = await kept.held()
    older = await kept.jobs.archive_output(await kept.jobs.seal_output(job_id, {**LARGE, "draft": "older"}))
    await kept.settle(job_id, token)
    assert older.sealed is not None
    await kept.redis.set(keys.job_output(job_id), older.sealed)
    report = Report()
    await RecordVerification(kept.redis, kept.clock).verify(report)
    assert [one.detail for one in report.faults if job_id in one.detail] == [
        f"{job_id}: its answer is not the one that was stored"
    ]


async def test_what_is_no_line_of_an_object_is_dropped(kept: Archived) -> None:
    await kept.completed()
    await kept.redis.zadd(keys.OUTPUT_OBJECTS, {"job_x/../../secret": 0, b"\xff\xfe": 0, "-": 0})
    await kept.redis.zadd(keys.UNARCHIVED, {"nothing": 0, "job_00000000000000000000000000": 0})
    assert await swept(kept) == 1
    await kept.objects.move()
    assert await kept.redis.zcard(keys.OUTPUT_OBJECTS) == 1
    assert await kept.redis.zcard(keys.UNARCHIVED) == 0
