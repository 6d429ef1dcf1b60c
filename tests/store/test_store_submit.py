"""Submitting: all of a job or nothing of it, and once however often it is sent."""

import asyncio
from datetime import timedelta

import pytest
from builders import LUNA, T0, new_job
from store_inspection import LostAnswers, audit_chains, places, sound

from worker.clock import to_ms
from worker.jobs.errors import Refused, StoreUnavailable
from worker.jobs.spec import Policy
from worker.store import keys
from worker.store.jobs.repository import Jobs, RetentionTimes


async def test_a_submitted_job_is_there_with_all_that_belongs_to_it(redis, jobs):
    new = new_job(safety_identifier="abc", webhook_events=("job.queued",))
    stored, replayed = await jobs.submit(new)
    job = stored.job
    assert not replayed
    assert job.status == "queued"
    assert await jobs.load(job.id) == stored
    assert stored.private == {"metadata": {"ticket": "A-17"}}
    assert await jobs.load_input(job.id) == {"input": "hi"}
    assert await jobs.load_output(job.id) is None
    assert [e["type"] for e in await jobs.trail(job.id)] == ["job.queued"]
    assert await places(redis, job.id) == [keys.READY]
    for index in ("", "status:queued", "model:gpt-5.6-sol", "user:abc"):
        name = keys.index("shop", *index.split(":")) if index else keys.index("shop")
        assert await redis.zscore(name, job.id) == to_ms(T0), name
    assert await redis.zcard(keys.OUTBOX) == 1
    await sound(redis, jobs, [job.id])


async def test_the_audit_names_whose_job_it_was_and_holds_no_content(redis, jobs):
    stored, _ = await jobs.submit(new_job(prompt="a secret prompt"))
    (record,) = (await audit_chains(redis))[stored.job.id]
    assert (record["app"], record["key_id"], record["requested_model"]) == ("shop", "key_1", "gpt-5.6-sol")
    for name in (keys.job(stored.job.id), keys.trail(stored.job.id), keys.AUDIT):
        assert b"a secret prompt" not in (await redis.dump(name) or b"")


async def test_a_job_for_later_waits_until_then(redis, jobs, clock):
    stored, _ = await jobs.submit(new_job(not_before=T0 + timedelta(hours=1)))
    assert (stored.job.status, stored.job.reason) == ("scheduled", "not_before")
    assert await redis.zscore(keys.LATER, stored.job.id) == to_ms(T0 + timedelta(hours=1))
    await sound(redis, jobs, [stored.job.id])
    now, _ = await jobs.submit(new_job(not_before=T0))
    assert now.job.status == "queued"


async def test_a_queue_deadline_is_kept_where_the_sweeper_looks(redis, jobs, clock):
    stored, _ = await jobs.submit(new_job(policy=Policy(queue_deadline_seconds=60)))
    assert await jobs.overdue() == []
    clock.step(61)
    assert await jobs.overdue() == [stored.job.id]


async def test_the_same_key_and_request_give_the_same_job(redis, jobs, clock):
    first, _ = await jobs.submit(new_job(key="k"))
    clock.step(5)
    again, replayed = await jobs.submit(new_job(key="k"))
    assert replayed
    assert again == first
    assert await redis.zcard(keys.READY) == 1
    assert len(await jobs.trail(first.job.id)) == 1


async def test_the_same_key_for_another_request_is_refused(redis, jobs):
    await jobs.submit(new_job(key="k"))
    with pytest.raises(Refused) as caught:
        await jobs.submit(new_job(key="k", fingerprint="f2", requested_model=LUNA))
    assert (caught.value.code, caught.value.status) == ("idempotency_key_reused", 422)
    assert await redis.zcard(keys.READY) == 1


async def test_a_key_belongs_to_its_app(jobs):
    first, _ = await jobs.submit(new_job(key="k"))
    other, replayed = await jobs.submit(new_job(key="k", app="bakery"))
    assert not replayed
    assert other.job.id != first.job.id


async def test_without_a_key_the_same_request_is_two_jobs(jobs):
    first, second = [await jobs.submit(new_job()) for _ in range(2)]
    assert first[0].job.id != second[0].job.id


async def test_a_key_whose_job_is_gone_says_so(redis, jobs):
    first, _ = await jobs.submit(new_job(key="k"))
    await redis.delete(keys.job(first.job.id), keys.trail(first.job.id))
    with pytest.raises(Refused, match="no longer kept"):
        await jobs.submit(new_job(key="k"))


async def test_a_key_is_kept_for_a_day_at_least_and_as_long_as_the_result(redis, clock):
    for result, least in ((60, 86_400), (7 * 86_400, 7 * 86_400)):
        await redis.flushall()
        await Jobs(redis, clock, RetentionTimes(result=result)).submit(new_job(key="k"))
        (name,) = await redis.keys("vigil:idem:*")
        assert least - 5 <= await redis.ttl(name) <= least


async def test_fifty_duplicates_at_once_are_one_job(redis, clock):
    doors = [Jobs(redis, clock) for _ in range(5)]
    answers = await asyncio.gather(*(doors[n % 5].submit(new_job(key="k")) for n in range(50)))
    assert len({stored.job.id for stored, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1
    assert await redis.zcard(keys.READY) == await redis.zcard(keys.index("shop")) == 1
    assert await redis.xlen(keys.AUDIT) == 1


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_job_whose_answer_was_lost_is_not_made_twice(redis, jobs, key):
    """redis-py sends the script again over a fresh connection: the second run changes nothing."""
    script = jobs._scripts._submit

    async def twice(**given):
        await script(**given)
        return await script(**given)

    jobs._scripts._submit = twice
    stored, replayed = await jobs.submit(new_job(key=key))
    assert not replayed
    await sound(redis, jobs, [stored.job.id])
    assert await redis.zcard(keys.READY) == 1


async def test_a_caller_who_tries_again_after_503_gets_the_job_that_was_taken(redis, jobs):
    script = jobs._scripts._submit
    jobs._scripts._submit = LostAnswers(script)
    with pytest.raises(StoreUnavailable):
        await jobs.submit(new_job(key="k"))
    stored, replayed = await jobs.submit(new_job(key="k"))
    assert replayed
    await sound(redis, jobs, [stored.job.id])
    assert await redis.zcard(keys.READY) == 1
