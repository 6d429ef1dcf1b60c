"""The counts of a group: right after lost answers, damage and the end of its jobs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from builders import BLOCKED, COMPLETED, STARTED, began, done, new_job

from worker.jobs import events as ev
from worker.jobs.errors import QueueFull
from worker.jobs.states import Outcome
from worker.store import keys
from worker.store.admission.app_quota import AppQuota
from worker.store.jobs.job_groups import read_group
from worker.store.jobs.repository import Jobs, RetentionTimes

APP, GROUP = "shop", "g"
GRACE = 3600


def grouped(**given):
    return new_job(optional={"group": GROUP}, **given)


async def counts(redis):
    found = await read_group(redis, APP, GROUP)
    return {} if found is None else {name: count for name, count in found.counts.items() if count}


async def run(jobs, *drafts):
    _, (one, *_) = await jobs.claim("w", 1, 60)
    await jobs.change(one.job.id, lambda _: [(STARTED, None), (began(), 1), *drafts], token=one.token)
    return one


async def test_a_group_is_kept_until_the_last_of_its_jobs_expires(redis, clock):
    jobs = Jobs(redis, clock, RetentionTimes(result=1000))
    await jobs.submit(grouped())
    await run(jobs, (done(), 1), (COMPLETED, 1))
    names = keys.group(APP, GROUP), keys.grouped(APP, GROUP)
    assert [1000 < await redis.ttl(name) <= 1000 + GRACE for name in names] == [True, True]
    await jobs.submit(grouped())
    assert [await redis.ttl(name) for name in names] == [-1, -1], "the group goes on"
    assert (await read_group(redis, APP, GROUP)).ended_at is None
    await run(jobs, (done(Outcome.BLOCKED), 1), (BLOCKED, 1))
    found = await read_group(redis, APP, GROUP)
    assert (found.total, found.open, found.ended_at is not None) == (2, 0, True)
    assert await counts(redis) == {"completed": 1, "blocked": 1}


async def test_a_commit_that_is_sent_twice_counts_once(redis, jobs):
    stored, _ = await jobs.submit(grouped())
    scripts = jobs._scripts
    sent = []
    original = scripts.commit

    async def twice(*args, **more):
        sent.append(await original(*args, **more))
        return await original(*args, **more)

    scripts.commit = twice
    await jobs.change(stored.job.id, lambda _: [(ev.Cancelled(upstream_under_way=False, billed=False), None)])
    assert sent == ["OK"]
    assert await counts(redis) == {"cancelled": 1}


async def test_a_record_that_is_set_aside_stays_counted_once(redis, jobs):
    stored, _ = await jobs.submit(grouped())
    await run(jobs)
    await redis.hset(keys.job(stored.job.id), "rec", "{")
    await redis.delete(keys.trail(stored.job.id))
    await redis.zadd(keys.LEASED, {stored.job.id: 0})
    assert (await jobs.current(stored.job.id)).id == stored.job.id
    found = await read_group(redis, APP, GROUP)
    assert sum(found.counts.values()) == found.total == 1
    assert all(count >= 0 for count in found.counts.values())


async def test_whole_batches_at_the_same_moment_never_exceed_the_quota(redis, jobs):
    def whole():
        return [replace(new_job(), quota=AppQuota(waiting=10)) for _ in range(4)]

    answers = await asyncio.gather(*(jobs.submit_all(whole()) for _ in range(6)), return_exceptions=True)
    assert [type(one) for one in answers if isinstance(one, BaseException)] == [QueueFull] * 4
    assert await redis.zcard(keys.READY) == 8
    held = [await redis.strlen(name) async for name in redis.scan_iter("vigil:in:*")]
    held += [await redis.hstrlen(name, "priv") async for name in redis.scan_iter("vigil:job:*")]
    assert int(await redis.hget(keys.content_sizes(APP), "total")) == sum(held)


@pytest.mark.parametrize("planted", ["string", "list"])
async def test_a_group_of_another_type_stops_no_job(redis, jobs, planted):
    name = keys.group(APP, GROUP)
    await (redis.set(name, "x") if planted == "string" else redis.rpush(name, "x"))
    await jobs.submit(grouped())
    assert await counts(redis) == {"queued": 1}
