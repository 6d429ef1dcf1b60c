"""Claiming and renewing: who holds a job, in which order they are handed out, and that none is ever forgotten."""

import asyncio
import json
from datetime import timedelta

import pytest
from builders import CANCELLED, HELD, STARTED, T0, backoff, began, done, new_job
from store_inspection import fall_due, lapse, places, sound

from worker.clock import to_ms
from worker.jobs import events as ev
from worker.jobs.errors import LeaseLost
from worker.jobs.spec import Policy
from worker.store import keys
from worker.store.jobs.control_requests import JobControl
from worker.store.jobs.repository import Jobs

INTERRUPTED = ev.Interrupted(worker="w1")


async def submit(jobs, clock, **given):
    clock.step(1)
    return (await jobs.submit(new_job(**given)))[0].job.id


async def claim(jobs, worker="w1", limit=1, lease=15.0):
    _, held = await jobs.claim(worker, limit, lease)
    return held


async def test_a_claimed_job_is_ours_with_all_that_is_needed_to_run_it(redis, jobs, clock):
    job_id = await submit(jobs, clock)
    (held,) = await claim(jobs)
    assert (held.job.id, held.generation, held.crashed) == (job_id, 1, False)
    assert held.private == {"metadata": {"ticket": "A-17"}}
    assert held.token == (await redis.hget(keys.job(job_id), "tok")).decode() != ""
    assert await places(redis, job_id) == [keys.LEASED]
    assert await claim(jobs, "w2") == []
    server, micros = await redis.time()
    ends = await redis.zscore(keys.LEASED, job_id)
    assert 0 < ends - (server * 1000 + micros // 1000) <= 15_000


async def test_arq_gets_a_fresh_id_for_each_wake_up_and_nothing_but_the_job_id(redis, jobs, clock):
    job_id = await submit(jobs, clock)
    await claim(jobs)
    await lapse(redis, job_id)
    await claim(jobs, "w2")
    for generation in (1, 2):
        payload = json.loads(await redis.get(f"arq:job:{job_id}.{generation}"))
        assert payload == {"t": None, "f": "run_job", "a": [job_id], "k": {}, "et": 0}


async def test_higher_priority_first_then_the_older(jobs, clock):
    low = await submit(jobs, clock, priority="low")
    normal = [await submit(jobs, clock) for _ in range(2)]
    high = [await submit(jobs, clock, priority="high") for _ in range(2)]
    held = await claim(jobs, limit=10)
    assert [h.job.id for h in held] == [*high, *normal, low]


async def test_lapsed_leases_come_first_then_the_others_by_rank_whether_they_waited_or_not(redis, jobs, clock):
    dead = await submit(jobs, clock, priority="low")
    await claim(jobs, "dead")
    later = await submit(jobs, clock, not_before=T0 + timedelta(days=1))
    ready = await submit(jobs, clock)
    urgent = await submit(jobs, clock, priority="high")
    await lapse(redis, dead)
    await fall_due(redis, later)
    order = [(await claim(jobs))[0] for _ in range(4)]
    assert [h.job.id for h in order] == [dead, urgent, later, ready]
    assert [h.crashed for h in order] == [True, False, False, False]
    assert await claim(jobs) == []


async def test_what_is_not_due_is_not_handed_out(jobs, clock):
    await submit(jobs, clock, not_before=T0 + timedelta(days=36500))
    assert await claim(jobs) == []


async def test_a_claim_returns_when_the_next_job_falls_due(redis, jobs, clock):
    assert (await jobs.claim("w1", 1, 15))[0] == -1
    job_id = await submit(jobs, clock, not_before=T0 + timedelta(hours=1))
    seconds, micros = await redis.time()
    await redis.zadd(keys.LATER, {job_id: seconds * 1000 + micros // 1000 + 5000})
    due, _ = await jobs.claim("w1", 1, 15)
    assert 3 < due <= 5
    await submit(jobs, clock)
    due, _ = await jobs.claim("w1", 1, 2)
    assert 0 < due <= 2, "a lease's end counts too: its holder may die"


async def test_many_workers_at_once_never_get_the_same_job(redis, clock):
    rooms = [Jobs(redis, clock) for _ in range(8)]
    ids = {await submit(rooms[0], clock) for _ in range(60)}
    got = await asyncio.gather(*(claim(room, f"w{n}", 5) for n, room in enumerate(rooms) for _ in range(2)))
    handed = [h.job.id for held in got for h in held]
    assert len(handed) == len(set(handed)) == 60
    assert set(handed) == ids


async def test_a_job_whose_record_is_gone_is_skipped_for_good(redis, jobs, clock):
    gone = [await submit(jobs, clock, priority="high") for _ in range(3)]
    await redis.zadd(keys.LEASED, {gone[0]: 1})
    await redis.zadd(keys.LATER, {gone[1]: 1})
    stays = await submit(jobs, clock)
    for job_id in gone:
        await redis.delete(keys.job(job_id))
    held = [h.job.id for h in await claim(jobs, limit=10)]
    assert held == [stays]
    for job_id in gone:
        assert await places(redis, job_id) == []


async def test_no_room_means_no_job(redis, jobs, clock):
    job_id = await submit(jobs, clock)
    assert await claim(jobs, limit=0) == []
    assert await places(redis, job_id) == [keys.READY]


async def test_a_worker_that_lost_its_lease_cannot_write(redis, jobs, clock):
    job_id = await submit(jobs, clock)
    (dead,) = await claim(jobs, "w1")
    await jobs.change(job_id, lambda _: [(STARTED, None), (began(), 1)], token=dead.token)
    await lapse(redis, job_id)
    (alive,) = await claim(jobs, "w2")
    assert (alive.crashed, alive.generation, alive.job.status) == (True, 2, "running")
    before = await redis.hgetall(keys.job(job_id))
    with pytest.raises(LeaseLost):
        await jobs.change(job_id, lambda _: [(done(), 1)], token=dead.token)
    assert await redis.hgetall(keys.job(job_id)) == before
    await jobs.change(job_id, lambda _: [(done(), 1)], token=alive.token)
    await sound(redis, jobs, [job_id])


async def test_a_lapsed_lease_is_still_ours_until_someone_takes_it(redis, jobs, clock):
    job_id = await submit(jobs, clock)
    (held,) = await claim(jobs)
    await lapse(redis, job_id)
    assert await jobs.renew(15, [(job_id, held.token)]) == [""]
    assert await claim(jobs, "w2") == []


async def test_renewing_returns_the_state_of_each_job(redis, jobs, clock):
    ours, lost, to_cancel, settled = [await submit(jobs, clock) for _ in range(4)]
    tokens = {h.job.id: h.token for h in await claim(jobs, limit=4)}
    await lapse(redis, lost)
    await claim(jobs, "w2")
    await jobs.change(to_cancel, lambda _: [(STARTED, None)])
    await JobControl(jobs).request_cancel(to_cancel, by="test")
    await jobs.change(settled, lambda _: [(CANCELLED, None)])
    held = [(name, tokens[name]) for name in (ours, lost, to_cancel, settled)]
    assert await jobs.renew(60, [*held, ("job_of_nobody", "w1:1")]) == ["", "LOST", "cancel", "LOST", "LOST"]
    seconds, _ = await redis.time()
    assert await redis.zscore(keys.LEASED, ours) > (seconds + 50) * 1000
    assert await redis.zscore(keys.LEASED, settled) is None, "renewing brings no settled job back"
    assert await jobs.renew(60, []) == []


@pytest.mark.parametrize(
    ("drafts", "place"),
    [
        ([], keys.LEASED),
        ([(STARTED, None)], keys.LEASED),
        ([(STARTED, None), (began(), 1)], keys.LEASED),
        ([(STARTED, None), (began(), 1), (INTERRUPTED, None)], keys.READY),
        ([(STARTED, None), (backoff(), None)], keys.LATER),
        ([(HELD, None)], keys.LATER),
        ([(ev.AccountFlagged(), None)], keys.LEASED),
        ([(CANCELLED, None)], None),
        ([(STARTED, None), (began(), 1), (done(), 1), (ev.Completed(served_model="gpt-5.6-sol"), 1)], None),
    ],
    ids=str,
)
async def test_a_job_is_in_the_one_queue_of_its_status(redis, jobs, clock, drafts, place):
    job_id = await submit(jobs, clock, policy=Policy(queue_deadline_seconds=60))
    (held,) = await claim(jobs)
    job = await jobs.change(job_id, lambda _: drafts, token=held.token)
    assert await places(redis, job_id) == ([place] if place else [])
    still_ours = await jobs.renew(15, [(job_id, held.token)]) == [""]
    assert still_ours == (place == keys.LEASED), "whoever lets go of a job has let go of its lease"
    waits = job.status in {"queued", "scheduled"}
    assert (await redis.zscore(keys.DEADLINE, job_id) is not None) == waits
    await sound(redis, jobs, [job_id])


async def test_a_wait_that_is_prolonged_falls_due_at_its_new_time(redis, jobs, clock):
    job_id = await submit(jobs, clock)
    for seconds in (10, 500, 20):
        await jobs.change(job_id, lambda _, s=seconds: [(backoff(s), None)])
        assert await redis.zscore(keys.LATER, job_id) == to_ms(T0 + timedelta(seconds=seconds))


async def test_a_job_that_fell_due_may_be_held_again(redis, jobs, clock):
    """Scheduled, claimed, scheduled: its status never changed, its place did."""
    job_id = await submit(jobs, clock)
    await jobs.change(job_id, lambda _: [(backoff(), None)])
    await fall_due(redis, job_id)
    (held,) = await claim(jobs)
    await jobs.change(job_id, lambda _: [(HELD, None)], token=held.token)
    assert await places(redis, job_id) == [keys.LATER]
    assert await claim(jobs) == []
    assert await jobs.renew(15, [(job_id, held.token)]) == ["LOST"]


async def test_an_aside_about_a_claimed_job_does_not_take_it_from_its_holder(redis, jobs, clock):
    job_id = await submit(jobs, clock)
    (held,) = await claim(jobs)
    await jobs.change(job_id, lambda _: [(ev.CancelRequested(by="key_1"), None)])
    assert await places(redis, job_id) == [keys.LEASED]
    await jobs.change(job_id, lambda _: [(STARTED, None)], token=held.token)
    await sound(redis, jobs, [job_id])


async def test_an_aside_about_a_waiting_job_does_not_change_when_it_falls_due(redis, jobs, clock):
    job_id = await submit(jobs, clock)
    await jobs.change(job_id, lambda _: [(HELD, None)])
    await fall_due(redis, job_id)  # the circuit closed
    await jobs.change(job_id, lambda _: [(ev.AccountFlagged(), None)])
    assert [h.job.id for h in await claim(jobs)] == [job_id]


async def test_a_released_job_is_first_in_line_again_by_its_age(jobs, clock):
    old = await submit(jobs, clock)
    await jobs.change(old, lambda _: [(backoff(), None)])
    young = await submit(jobs, clock)
    await jobs.change(old, lambda _: [(ev.Released(), None)])
    assert [h.job.id for h in await claim(jobs, limit=2)] == [old, young]


async def test_a_job_held_while_its_circuit_closed_is_let_go_by_the_next_probe(redis, jobs, clock):
    """The gate drafts open, the circuit closed, then the hold was written: nobody else would ever wake that job."""
    from worker.store.admission.circuit_breaker import CircuitBreaker

    circuit = CircuitBreaker(redis, HELD.hold_scope)
    job_id = await submit(jobs, clock)
    await circuit.trip("job_other", "insufficient_quota")
    (held,) = await claim(jobs)
    assert (await circuit.gate(job_id)).state == "open"
    await circuit.close()
    await jobs.change(job_id, lambda _: [(HELD, None)], token=held.token)
    await circuit.start_trial()
    assert [h.job.id for h in await claim(jobs)] == [job_id]


async def test_a_leased_job_in_its_apps_queue_is_not_claimed_twice(redis, jobs, clock):
    first = await submit(jobs, clock)
    (held,) = await claim(jobs)
    await redis.zadd(keys.app_queue(held.job.app), {first: 0})
    await redis.zadd(keys.RING, {held.job.app: 0})
    second = await submit(jobs, clock)
    assert [one.job.id for one in await claim(jobs, "w2", limit=5)] == [second]
    assert (await redis.hget(keys.job(first), "tok")).decode() == held.token
