"""Looks at content in the console are records of the trail: one for a session, a job and a kind, proven like others."""

from __future__ import annotations

import json

import pytest
from builders import new_job
from sealed_trail import NORMAL, SealedTrail
from store_inspection import audit_chains

from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.audit.acts import Actor
from worker.store.audit.content_reads import MAX_LISTED, WINDOW_S, ContentReads
from worker.store.audit.export import Export
from worker.store.audit.trail_search import TrailFilter


@pytest.fixture
def reads(redis, clock) -> ContentReads:
    return ContentReads(redis, clock)


async def submitted(jobs, app="shop"):
    return (await jobs.submit(new_job(app=app)))[0].job.id


async def test_a_look_is_one_record_of_the_jobs_chain_and_names_who_and_what(redis, jobs, clock, reads):
    job_id = await submitted(jobs)
    assert await reads.record("shop", job_id, "prompt", Actor("key_anna", via="console"), "s1") is True
    clock.step(1)
    assert await reads.record("shop", job_id, "prompt", Actor("key_anna", via="console"), "s1") is False, "a reload"
    assert await reads.record("shop", job_id, "output", Actor("key_anna", via="console"), "s1") is True
    assert await reads.record("shop", job_id, "prompt", Actor("key_bob", via="console"), "s2") is True
    notes = [record for record in (await audit_chains(redis))[job_id] if record["type"] == "content.read"]
    assert [(note["data"]["kind"], note["data"]["by"], note["data"]["session"]) for note in notes] == [
        ("prompt", "key_anna", "s1"),
        ("output", "key_anna", "s1"),
        ("prompt", "key_bob", "s2"),
    ]
    assert {(note["app"], note["job_id"], note["data"]["via"]) for note in notes} == {("shop", job_id, "console")}
    assert "hi" not in json.dumps(notes), "the prompt itself"


async def test_after_some_minutes_a_look_is_a_new_one(redis, jobs, reads):
    job_id = await submitted(jobs)
    await reads.record("shop", job_id, "packet", Actor("key_1", via="console"), "s1")
    (mark,) = await redis.keys("vigil:readmark:*")
    assert 0 < await redis.ttl(mark) <= WINDOW_S
    await redis.delete(mark)  # its time is over
    assert await reads.record("shop", job_id, "packet", Actor("key_1", via="console"), "s1") is True


async def test_without_a_trail_nothing_may_be_shown(reads):
    with pytest.raises(Refused):
        await reads.record("shop", "job_01k0000000abcdefghjkmnpqrs", "prompt", Actor("key_1", via="console"), "s1")


async def test_who_read_what_is_listed_by_app_the_newest_first(redis, jobs, clock, reads):
    first, second, foreign = await submitted(jobs), await submitted(jobs), await submitted(jobs, "other")
    for job_id, app in ((first, "shop"), (foreign, "other"), (second, "shop")):
        clock.step(1)
        await reads.record(app, job_id, "output", Actor("key_1", via="console"), "s1")
    found = await reads.of_app("shop", 10)
    assert [(one.job_id, one.kind, one.by) for one in found] == [
        (second, "output", "key_1"),
        (first, "output", "key_1"),
    ]
    assert [one.job_id for one in await reads.of_app("shop", 1, offset=1)] == [first]
    await redis.lpush(keys.content_reads("shop"), *await redis.lrange(keys.chain_records(foreign), 0, -1))
    assert [one.job_id for one in await reads.of_app("shop", 10)] == [second, first], "a planted place shows nothing"


async def test_the_list_is_bounded_and_one_of_another_type_does_no_harm(redis, jobs, reads, telemetry_events):
    await redis.rpush(keys.content_reads("shop"), *["1-1"] * (MAX_LISTED + 5))
    await reads.record("shop", await submitted(jobs), "output", Actor("key_1", via="console"), "s1")
    assert await redis.llen(keys.content_reads("shop")) == MAX_LISTED
    await redis.set(keys.content_reads("shop"), "spoiled")
    await reads.record("shop", await submitted(jobs), "output", Actor("key_1", via="console"), "s1")
    assert len(await reads.of_app("shop", 10)) == 1
    assert ("record.unreadable", "reads") in [(name, body.get("what")) for name, body in telemetry_events]


async def test_verification_and_exports_know_these_records(redis, jobs, clock, reads):
    sealed = SealedTrail(redis, clock, jobs)
    await sealed.fill(12)
    running, ended = sealed.ids[3], sealed.ids[0]
    for job_id in (running, ended):
        await reads.record("shop", job_id, "prompt", Actor("key_1", via="console"), "s1")
    await jobs.change(running, lambda _: NORMAL)
    await sealed.seal()
    report = await sealed.verify()
    assert report.good, report.faults
    lines = [json.loads(line) async for page in Export(redis, clock, TrailFilter("shop")).lines() for line in page]
    assert [line["record"]["type"] for line in lines].count("content.read") == 2
    rows = await sealed.rows()
    await sealed.rebuild([row for row in rows if b"content.read" not in row.record])
    assert not (await sealed.verify()).good, "who removes such a record is found"
