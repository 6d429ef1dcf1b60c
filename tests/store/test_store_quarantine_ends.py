"""A quarantine ends by itself at its time, is renewed by what comes after, and each of that is in log and trail."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from builders import BLOCKED, PLAIN, STARTED, began, done, new_job, noticed

from worker.clock import Clock, to_ms
from worker.jobs import events as ev
from worker.jobs.errors import Refused
from worker.jobs.states import CheckEnd, Outcome
from worker.store import keys
from worker.store.audit.trail import Trail
from worker.store.end_users.ledger_entries import QuarantineLimits
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.repository import Jobs
from worker.tasks.maintenance.quarantine_cleanup import cancel_quarantined_jobs

ANN = "a" * 64
DAY = timedelta(days=1)
BLOCK = [(STARTED, None), (began(), 1), (noticed(), 1), (ev.CheckEnded(ended_by=CheckEnd.BLOCKED), 1)]
BLOCK += [(done(Outcome.BLOCKED), 1), (BLOCKED, 1)]


@pytest.fixture
def quarantine(redis, clock):
    return Quarantine(redis, clock)


@pytest.fixture
def jobs(redis, clock):
    return Jobs(redis, clock, limits=QuarantineLimits(blocks=2, days=7))


async def running(jobs, clock):
    """A job that was begun, so that a quarantine does not stop it."""
    clock.step(1)
    job_id = (await jobs.submit(new_job(safety_identifier=ANN)))[0].job.id
    await jobs.change(job_id, lambda _: BLOCK[:2])
    return job_id


async def blocked(jobs, job_id):
    await jobs.change(job_id, lambda _: BLOCK[2:])


async def acts(redis):
    rows = [json.loads(row.record) for row in await Trail(redis, Clock()).of_chain("app:shop")]
    return [(row["type"], row["data"]["by"]) for row in rows if row["type"].startswith("quarantine.")]


async def log(quarantine):
    return [(one.act, one.by) for one in await quarantine.log(ANN)][::-1]


async def until(quarantine):
    return (await quarantine.find("shop", ANN)).until_ms


async def test_blocks_quarantine_for_days_and_a_further_block_renews_it(redis, jobs, clock, quarantine):
    three = [await running(jobs, clock) for _ in range(3)]
    for job_id in three[:2]:
        await blocked(jobs, job_id)
    assert await until(quarantine) == to_ms(clock.now() + 7 * DAY)
    clock.step(3600)
    await blocked(jobs, three[2])
    assert await until(quarantine) == to_ms(clock.now() + 7 * DAY)
    assert await log(quarantine) == [("began", "vigil"), ("renewed", "vigil")]
    await asyncio.gather(*(quarantine.note_new() for _ in range(4)))
    assert await acts(redis) == [("quarantine.added", "vigil")], "once, however many workers sweep"
    await quarantine.lift("shop", ANN, by="key_1", reason="appeal")
    assert await log(quarantine) == [("began", "vigil"), ("renewed", "vigil"), ("lifted", "key_1")]
    assert await quarantine.end_due() == 0
    assert (await acts(redis))[-1] == ("quarantine.lifted", "key_1")


async def test_it_ends_by_itself_with_a_record_and_once(redis, jobs, clock, quarantine):
    for job_id in [await running(jobs, clock) for _ in range(2)]:
        await blocked(jobs, job_id)
    await quarantine.note_new()
    clock.step((7 * DAY).total_seconds() - 1)
    await quarantine.end_due()
    assert await quarantine.find("shop", ANN) is not None
    clock.step(2)
    await asyncio.gather(*(quarantine.end_due() for _ in range(4)))
    assert await redis.hget(keys.QUARANTINE, ANN) is None
    assert await acts(redis) == [("quarantine.added", "vigil"), ("quarantine.ended", "vigil")]
    assert await log(quarantine) == [("began", "vigil"), ("ended", "vigil")]
    await jobs.submit(new_job(safety_identifier=ANN))


async def test_what_waited_through_all_of_it_goes_on_when_no_worker_ran(redis, jobs, clock, quarantine):
    waiting = (await jobs.submit(new_job(safety_identifier=ANN)))[0].job.id
    await quarantine.add("shop", ANN, by="key_1", reason="a day", until=clock.now() + DAY)
    clock.step(2 * 86_400)
    assert await cancel_quarantined_jobs(jobs, quarantine) == 0, "the sweep of workers that come back"
    await quarantine.end_due()
    assert await cancel_quarantined_jobs(jobs, quarantine) == 0
    assert (await jobs.load(waiting)).job.status == "queued"


async def test_the_later_end_counts_and_none_is_the_latest(redis, clock, quarantine):
    jobs = Jobs(redis, clock, limits=QuarantineLimits(blocks=1, days=7))
    one, two = await running(jobs, clock), await running(jobs, clock)
    await quarantine.add("shop", ANN, by="key_1", reason="longer", until=clock.now() + 30 * DAY)
    ends = await until(quarantine)
    await blocked(jobs, one)
    assert await until(quarantine) == ends, "a person's later end stands"
    await quarantine.add("shop", ANN, by="key_1", reason="for good")
    await blocked(jobs, two)
    assert await until(quarantine) == 0
    at = clock.now() + timedelta(seconds=1)
    assert await quarantine.add_by_provider("shop", ANN, at, "safety_identifier.blocked", 7) is False
    assert await redis.zcard(keys.QUARANTINE_ENDS) == 0


async def test_a_person_ends_it_earlier_only_expressly(redis, clock, quarantine):
    async def renewed(days, **given):
        until = None if days is None else clock.now() + days * DAY
        return await quarantine.add("shop", ANN, by="key_1", reason="", until=until, **given)

    for first, then in ((30, 1), (None, 3_650)):
        await renewed(first)
        with pytest.raises(Refused, match="longer than that") as refused:
            await renewed(then)
        assert refused.value.code == "would_end_earlier"
        assert await until(quarantine) == (0 if first is None else to_ms(clock.now() + first * DAY))
    await renewed(None)
    raw = await redis.hget(keys.QUARANTINE, ANN)
    await redis.hset(keys.QUARANTINE, ANN, b"nothing that can be read")
    with pytest.raises(Refused):
        await renewed(1)
    await redis.hset(keys.QUARANTINE, ANN, raw)
    await renewed(1, shorten=True)
    await renewed(2)
    clock.step(3 * 86_400)
    await renewed(1)  # over, and not removed yet
    assert await until(quarantine) == to_ms(clock.now() + DAY)
    assert {act for act, _ in await acts(redis)} == {"quarantine.added"}


async def test_a_new_notice_renews_and_the_same_one_does_not(redis, clock, quarantine):
    at = clock.now()
    assert await quarantine.add_by_provider("shop", ANN, at, "safety_identifier.blocked", 7) is True
    clock.step(86_400)
    assert await quarantine.add_by_provider("shop", ANN, at, "safety_identifier.blocked", 7) is False
    assert await quarantine.add_by_provider("shop", ANN, clock.now(), "safety_identifier.blocked", 7) is True
    assert await until(quarantine) == to_ms(clock.now() + 7 * DAY)
    assert await log(quarantine) == [("began", "provider"), ("renewed", "provider")]
    clock.step(8 * 86_400)
    await quarantine.end_due()
    assert await quarantine.find("shop", ANN) is None


async def test_a_row_of_an_earlier_release_ends_too(redis, clock, quarantine):
    await quarantine.add("shop", ANN, by="key_1", reason="", until=clock.now() + DAY)
    await redis.delete(keys.QUARANTINE_ENDS)
    await quarantine.index_ends()
    clock.step(2 * 86_400)
    await quarantine.end_due()
    assert await redis.hlen(keys.QUARANTINE) == 0


@pytest.mark.skipif(PLAIN, reason="without master keys whoever writes to Redis is believed")
async def test_a_changed_end_ends_nothing_and_is_not_looked_at_each_time(redis, clock, quarantine):
    await quarantine.add("shop", ANN, by="key_1", reason="", until=clock.now() + DAY)
    raw = await redis.hget(keys.QUARANTINE, ANN)
    now = to_ms(clock.now())
    await redis.hset(keys.QUARANTINE, ANN, raw.replace(str(now + 86_400_000).encode(), str(now - 1).encode()))
    await redis.zadd(keys.QUARANTINE_ENDS, {ANN: now - 1})
    assert await quarantine.end_due() == 1
    assert await redis.hexists(keys.QUARANTINE, ANN)
    assert await quarantine.end_due() == 0
    assert [act for act, _ in await acts(redis)] == ["quarantine.added"]


async def test_it_stays_where_its_end_can_not_be_recorded(redis, clock, quarantine):
    await quarantine.add("shop", ANN, by="key_1", reason="", until=clock.now() + DAY)
    await redis.delete(keys.AUDIT)  # the last record of the app's chain is gone
    clock.step(2 * 86_400)
    assert await quarantine.end_due() == 1
    assert await redis.hexists(keys.QUARANTINE, ANN)
