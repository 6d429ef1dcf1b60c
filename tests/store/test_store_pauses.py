"""Pauses in the store: nothing starts after one was set, what runs goes on, what was held falls due at its end."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from builders import CANCELLED, STARTED, backoff, began, new_job
from store_inspection import fall_due, lapse, places, sound

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.spec import Policy
from worker.store import keys
from worker.store.admission.pauses import Pauses
from worker.tasks.execution.attempt_start import hold_for_pause

SID = "ab" * 32


@pytest.fixture
def pauses(redis):
    return Pauses(redis, Clock())


@pytest.fixture
def now():
    return Clock().now()


async def submit(jobs, clock, **given):
    clock.step(1)
    return (await jobs.submit(new_job(**given)))[0].job.id


async def claim(jobs, worker="w1", limit=10):
    return (await jobs.claim(worker, limit, 60.0))[1]


async def work(jobs):
    """What a worker does: takes what there is, holds what is paused; gives the ids of the others."""
    started = []
    for held in await claim(jobs):
        if held.pause is None:
            started.append(held.job.id)
        else:
            await jobs.change(held.job.id, lambda _, p=held.pause: [hold_for_pause(p)], token=held.token)
    return started


@pytest.mark.parametrize(
    ("kind", "name", "stopped"),
    [
        ("all", "", {"mine", "other model", "other app", "someone"}),
        ("app", "shop", {"mine", "other model", "someone"}),
        ("model", "gpt-5.6-sol", {"mine", "other app", "someone"}),
        ("end_user", SID, {"someone"}),
        ("app", "sho", set()),
    ],
)
async def test_a_pause_stops_what_it_names_and_nothing_else(redis, jobs, clock, pauses, kind, name, stopped):
    ids = {
        "mine": await submit(jobs, clock),
        "other model": await submit(jobs, clock, requested_model="gpt-5.6-luna"),
        "other app": await submit(jobs, clock, app="mall"),
        "someone": await submit(jobs, clock, safety_identifier=SID),
    }
    made = await pauses.pause(kind, name, by="key_ops", note="under review")
    started = await work(jobs)
    assert {word for word, job_id in ids.items() if job_id not in started} == stopped
    for word in stopped:
        job = (await jobs.load(ids[word])).job
        assert (job.status, job.reason, job.started_at) == ("scheduled", "hold", None)
        assert (job.hold.scope, job.hold.reason, job.hold.by) == (made.scope, "under review", "key_ops")
        assert (await jobs.trail(ids[word]))[-1]["data"]["hold_by"] == "key_ops", "who and why is in the trail"
    await sound(redis, jobs, list(ids.values()))
    assert await pauses.resume(kind, name) == (True, len(stopped))
    assert set(await work(jobs)) == {ids[word] for word in stopped}
    assert (await pauses.resume(kind, name))[0] is False
    assert await pauses.list() == []


async def test_what_runs_goes_on_whatever_happens_to_its_worker(redis, jobs, clock, pauses):
    job_id = await submit(jobs, clock)
    (held,) = await claim(jobs)
    await jobs.change(job_id, lambda _: [(STARTED, None), (began(), 1)], token=held.token)
    await pauses.pause("all", "", by="key_ops")
    assert await jobs.renew(60, [(job_id, held.token)]) == [""]
    await lapse(redis, job_id)
    (rescued,) = await claim(jobs, "w2")
    assert rescued.pause is None
    await jobs.change(job_id, lambda _: [(ev.Interrupted(worker="w2"), None)], token=rescued.token)
    (handed_over,) = await claim(jobs, "w3")
    assert handed_over.pause is None, "its response is under way at the provider"


async def test_a_retry_that_falls_due_waits_as_well(redis, jobs, clock, pauses):
    job_id = await submit(jobs, clock)
    await jobs.change(job_id, lambda _: [(backoff(), None)])
    await pauses.pause("app", "shop", by="key_ops")
    await fall_due(redis, job_id)
    assert await work(jobs) == []
    assert (await jobs.load(job_id)).job.reason == "hold"


async def test_a_pause_ends_by_itself_at_its_time(redis, jobs, clock, pauses, now):
    job_id = await submit(jobs, clock)
    until = (now + timedelta(hours=1)).replace(microsecond=0)
    await pauses.pause("app", "shop", by="key_ops", until=until)
    assert await work(jobs) == []
    assert (await jobs.load(job_id)).job.next_attempt_at == until
    assert await redis.zscore(keys.LATER, job_id) == until.timestamp() * 1000, "it falls due by itself"
    await pauses.pause("app", "shop", by="key_ops", until=now - timedelta(seconds=1))  # its time comes sooner
    assert await pauses.list() == []
    await pauses.sweep()
    assert await work(jobs) == [job_id]


async def test_a_pause_that_is_prolonged_goes_on(redis, jobs, clock, pauses, now):
    job_id = await submit(jobs, clock)
    await pauses.pause("app", "shop", by="key_ops", until=now + timedelta(minutes=1))
    await work(jobs)
    await pauses.pause("app", "shop", by="key_ops", note="longer")
    await fall_due(redis, job_id)
    assert await work(jobs) == []
    job = (await jobs.load(job_id)).job
    assert (job.next_attempt_at, job.hold.reason) == (None, "longer")


async def test_a_job_held_while_the_pause_ended_is_let_go_by_the_next_sweep(redis, jobs, clock, pauses):
    job_id = await submit(jobs, clock)
    await pauses.pause("app", "shop", by="key_ops")
    (held,) = await claim(jobs)
    await pauses.resume("app", "shop")
    await pauses.sweep()
    await jobs.change(job_id, lambda _: [hold_for_pause(held.pause)], token=held.token)
    assert await claim(jobs) == []
    await pauses.sweep()
    assert await work(jobs) == [job_id]
    await pauses.sweep()
    assert await redis.smembers(keys.HOLDING_SCOPES) in ({b"pause:app:shop"}, set())


async def test_two_pauses_must_both_end(jobs, clock, pauses):
    job_id = await submit(jobs, clock)
    await pauses.pause("all", "", by="key_ops")
    await pauses.pause("app", "shop", by="key_ops")
    assert await work(jobs) == []
    await pauses.resume("all")
    assert await work(jobs) == []
    await pauses.resume("app", "shop")
    assert await work(jobs) == [job_id]


async def test_deadline_and_cancellation_count_while_paused(redis, jobs, clock, pauses):
    late = await submit(jobs, clock, policy=Policy(queue_deadline_seconds=60))
    cancelled = await submit(jobs, clock)
    await pauses.pause("app", "shop", by="key_ops")
    await work(jobs)
    await jobs.change(cancelled, lambda _: [(CANCELLED, None)])
    clock.step(61)
    assert await jobs.overdue() == [late]
    assert await places(redis, cancelled) == []
    await sound(redis, jobs, [late, cancelled])


async def test_the_list_says_who_why_and_until_when(pauses, now):
    until = (now + timedelta(hours=1)).replace(microsecond=0)
    await pauses.pause("model", "gpt-5.6-sol", by="key_a", note="too slow", until=until)
    await pauses.pause("all", "", by="key_b")
    rows = {p.kind: p for p in await pauses.list()}
    assert (rows["model"].name, rows["model"].by, rows["model"].note) == ("gpt-5.6-sol", "key_a", "too slow")
    assert rows["model"].until == until
    assert isinstance(rows["all"].since, datetime)
    assert rows["all"].until is None
