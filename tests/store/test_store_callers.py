"""Callers: a retry takes the place of one that has gone or whose process is dead, once, whatever gets lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from builders import new_job
from store_inspection import LostAnswers
from waiting import until

from worker.jobs.errors import EarlierCallerWaits
from worker.store import keys
from worker.store.jobs.callers import Callers

DIGEST = "d" * 64


def create(callers, *, retry=False, digest=DIGEST, window=60.0, **changes):
    return replace(new_job(input_digest="i", **changes), caller=callers.begin(digest, window, retry=retry))


def late(new):
    return replace(new, caller=replace(new.caller, turn="late"))


async def go(callers, new, stored, *, answered=False):
    await callers.end("shop", new.caller, stored.job.id, answered=answered)


async def test_a_retry_joins_the_oldest_job_whose_caller_has_gone(redis, jobs, clock):
    made = []
    for _ in range(3):
        new = create(jobs.callers)
        made.append((new, (await jobs.submit(new))[0]))
        clock.step(1)
    for new, stored in reversed(made):
        await go(jobs.callers, new, stored)
    joined = [await jobs.submit(create(jobs.callers, retry=True)) for _ in range(3)]
    assert [(stored.job.id, replayed) for stored, replayed in joined] == [(s.job.id, True) for _, s in made]
    with pytest.raises(EarlierCallerWaits):
        await jobs.submit(create(jobs.callers, retry=True))
    assert await redis.zcard(keys.index("shop")) == 3


async def test_a_caller_that_is_answered_is_forgotten(redis, jobs):
    new = create(jobs.callers)
    stored, _ = await jobs.submit(new)
    await go(jobs.callers, new, stored, answered=True)
    assert not await redis.exists(keys.callers("shop", DIGEST))
    assert not (await jobs.submit(create(jobs.callers, retry=True)))[1]


async def test_a_caller_is_remembered_for_its_window(redis, jobs):
    new = create(jobs.callers, window=0.05)
    stored, _ = await jobs.submit(new)
    await go(jobs.callers, new, stored)
    await asyncio.sleep(0.1)
    assert not (await jobs.submit(create(jobs.callers, retry=True)))[1]


async def test_only_the_caller_of_now_ends_its_place(redis, jobs):
    first, second = create(jobs.callers), create(jobs.callers, retry=True)
    stored, _ = await jobs.submit(first)
    await go(jobs.callers, first, stored)
    await jobs.submit(second)
    await go(jobs.callers, first, stored, answered=True)
    with pytest.raises(EarlierCallerWaits):
        await jobs.submit(create(jobs.callers, retry=True))


async def test_the_caller_of_a_dead_process_has_gone(redis, clock, jobs):
    other = Callers(redis, clock)
    stored, _ = await jobs.submit(create(other))
    with pytest.raises(EarlierCallerWaits):
        await jobs.submit(create(jobs.callers, retry=True))
    await redis.zadd(keys.API_PROCESSES, dict.fromkeys(await redis.zrange(keys.API_PROCESSES, 0, -1), 1))
    assert (await jobs.submit(create(jobs.callers, retry=True)))[0].job.id == stored.job.id


async def test_a_process_says_that_it_lives_while_callers_wait_in_it_and_when_it_ends(redis, jobs):
    alive = asyncio.create_task(jobs.callers.run())
    new = create(jobs.callers)
    await jobs.submit(new)
    (before,) = await redis.zrange(keys.API_PROCESSES, 0, -1, withscores=True)

    async def renewed():
        return (await redis.zrange(keys.API_PROCESSES, 0, -1, withscores=True))[0][1] > before[1]

    await until("the process to say that it lives", renewed)
    alive.cancel()
    await asyncio.gather(alive, return_exceptions=True)
    assert await redis.zcard(keys.API_PROCESSES) == 0


async def test_a_lost_reply_joins_once(redis, jobs):
    new = create(jobs.callers)
    stored, _ = await jobs.submit(new)
    await go(jobs.callers, new, stored)
    retry = create(jobs.callers, retry=True)
    jobs._scripts._submit = LostAnswers(jobs._scripts._submit)
    with pytest.raises(Exception, match="Redis"):
        await jobs.submit(retry)
    assert (await jobs.submit(retry))[0].job.id == stored.job.id


async def test_a_job_whose_creation_was_given_up_is_found_by_the_name_of_its_caller(redis, jobs):
    new = create(jobs.callers)
    jobs._scripts._submit = LostAnswers(jobs._scripts._submit)
    with pytest.raises(Exception, match="Redis"):
        await jobs.submit(new)
    jobs.callers.end_later("shop", new.caller)

    async def left():
        return [state for state in await redis.hvals(keys.callers("shop", DIGEST)) if state.startswith(b"left:")]

    await until("the caller to have left", left)
    assert (await jobs.submit(create(jobs.callers, retry=True)))[1]
    assert await redis.zcard(keys.index("shop")) == 1


async def test_a_forged_entry_joins_no_other_job(redis, jobs):
    of_bakery, _ = await jobs.submit(new_job(app="bakery", input_digest="i"))
    other, _ = await jobs.submit(new_job(input_digest="another"))
    forged = dict.fromkeys((of_bakery.job.id, other.job.id, "job_none"), "left:9999999999999")
    await redis.hset(keys.callers("shop", DIGEST), mapping=forged)
    for _ in forged:
        stored, replayed = await jobs.submit(late(create(jobs.callers, retry=True)))
        assert not replayed
        assert stored.job.id not in forged
        assert stored.job.app == "shop"


async def test_what_a_caller_that_never_comes_back_leaves_is_bounded(redis, jobs):
    for number in range(300):
        new = create(jobs.callers, window=0.001 if number < 150 else 60.0)
        stored, _ = await jobs.submit(new)
        await go(jobs.callers, new, stored)
    assert await redis.hlen(keys.callers("shop", DIGEST)) <= 256
    assert 0 < await redis.pttl(keys.callers("shop", DIGEST)) <= 3_700_000
