"""Turns: an app's backlog makes nobody else wait, weights give shares, and no app runs more at once than it may."""

from __future__ import annotations

from collections import Counter

import pytest
from builders import CANCELLED, HELD, STARTED, backoff, new_job
from hypothesis import HealthCheck, given, settings, strategies as st
from store_inspection import fall_due, lapse, places, sound

from worker.jobs import events as ev
from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.apps import Apps
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import AppLimits


@pytest.fixture
async def apps(redis, clock):
    made = Apps(redis, clock)
    for name in ("big", "small", "third"):
        await made.create_key(name, ("submit",))
    return made


async def submit(jobs, clock, app, count=1, **changes):
    names = []
    for _ in range(count):
        clock.step(0.001)
        names.append((await jobs.submit(new_job(app=app, **changes)))[0].job.id)
    return names


async def claim(jobs, limit=1, worker="w1", **given):
    return (await jobs.claim(worker, limit, 60.0, **given))[1]


async def takers(jobs, limit):
    return [held.job.app for held in await claim(jobs, limit)]


async def test_a_backlog_makes_nobody_else_wait(jobs, clock):
    await submit(jobs, clock, "big", 60)
    small_jobs = await submit(jobs, clock, "small", 5)
    first = await claim(jobs, 10)
    assert {h.job.id for h in first} >= set(small_jobs), "every second turn was the small one's"


async def test_one_at_a_time_or_many_at_once_the_turns_are_the_same(jobs, clock):
    for app in ("big", "small", "third"):
        await submit(jobs, clock, app, 4)
    singly = [(await takers(jobs, 1))[0] for _ in range(6)]
    assert Counter(singly) == Counter(await takers(jobs, 6)) == {"big": 2, "small": 2, "third": 2}


async def test_priorities_count_inside_an_app_and_not_against_another(jobs, clock):
    await submit(jobs, clock, "big", 5, priority="high")
    low, high = await submit(jobs, clock, "small", priority="low"), await submit(jobs, clock, "small", priority="high")
    held = [h.job.id for h in await claim(jobs, 4)]
    assert [name for name in held if name in low + high] == high + low


async def test_a_weight_is_a_share(apps, jobs, clock):
    await apps.set_limits("big", weight=3)
    for app in ("big", "small"):
        await submit(jobs, clock, app, 20)
    assert Counter(await takers(jobs, 16)) == {"big": 12, "small": 4}


async def test_who_was_away_has_saved_nothing_up(jobs, clock):
    await submit(jobs, clock, "big", 40)
    assert await takers(jobs, 20) == ["big"] * 20
    await submit(jobs, clock, "small", 20)
    assert Counter(await takers(jobs, 10)) == {"big": 5, "small": 5}


async def test_whose_line_runs_dry_now_and_then_gets_no_more_than_its_turns(jobs, clock):
    """One job at a time is always in line: it must not be first each time."""
    await submit(jobs, clock, "big", 20)
    got = []
    for _ in range(12):
        if await jobs._redis.zcard(keys.app_queue("small")) == 0:
            await submit(jobs, clock, "small")
        got += await takers(jobs, 1)
    assert Counter(got) == {"big": 6, "small": 6}


async def test_due_retries_wait_for_their_apps_turn(redis, jobs, clock):
    names = await submit(jobs, clock, "big", 30)
    for name in names:
        await jobs.change(name, lambda _: [(backoff(), None)])
        await fall_due(redis, name)
    (small_jobs,) = await submit(jobs, clock, "small")
    held = await claim(jobs, 2)
    assert small_jobs in {h.job.id for h in held}
    await sound(redis, jobs, [*names, small_jobs])


async def test_an_app_runs_no_more_at_once_than_it_may_and_holds_nobody_up(apps, redis, jobs, clock):
    await apps.set_limits("big", max_running=2)
    big = await submit(jobs, clock, "big", 6)
    assert len(await claim(jobs, 10)) == 2
    small = await submit(jobs, clock, "small", 3)
    assert [h.job.id for h in await claim(jobs, 10)] == small
    assert await claim(jobs, 10) == []
    await sound(redis, jobs, big + small)


@pytest.mark.parametrize("end", [CANCELLED, backoff(), HELD, ev.Interrupted(worker="w1")], ids=lambda fact: fact.TYPE)
async def test_a_slot_that_frees_is_taken_at_once(apps, redis, jobs, clock, end):
    await apps.set_limits("big", max_running=1)
    big = await submit(jobs, clock, "big", 3)
    (held,) = await claim(jobs, 10)
    assert await claim(jobs, 10) == []
    await jobs.change(held.job.id, lambda _: [(STARTED, None), (end, None)], token=held.token)
    assert len(await claim(jobs, 10)) == 1
    await sound(redis, jobs, big)


async def test_a_dead_workers_jobs_keep_their_slots_and_are_rescued_in_them(apps, redis, jobs, clock):
    await apps.set_limits("big", max_running=1)
    await submit(jobs, clock, "big", 3)
    (held,) = await claim(jobs, 10)
    await lapse(redis, held.job.id)
    (again,) = await claim(jobs, 10, worker="w2")
    assert (again.job.id, again.crashed) == (held.job.id, True)
    assert await claim(jobs, 10) == []


async def test_a_slot_without_a_lease_does_not_count(apps, redis, jobs, clock):
    """The count is that of the leases: whatever was lost besides, no slot is lost for ever."""
    await apps.set_limits("big", max_running=1)
    first, second = await submit(jobs, clock, "big", 2)
    (held,) = await claim(jobs, 1)
    assert held.job.id == first
    await redis.delete(keys.job(first))
    await lapse(redis, first)
    assert [h.job.id for h in await claim(jobs, 10)] == [second]


async def test_a_new_limit_counts_at_once_whether_it_rises_or_falls(apps, jobs, clock):
    await submit(jobs, clock, "big", 9)
    await apps.set_limits("big", max_running=2)
    assert len(await claim(jobs, 10)) == 2
    await apps.set_limits("big", max_running=3)
    assert len(await claim(jobs, 10)) == 1
    await apps.set_limits("big", max_running=1)
    assert await claim(jobs, 10) == []
    await apps.set_limits("big", max_running=0)
    assert len(await claim(jobs, 10)) == 6


async def test_the_settings_limit_goes_for_apps_without_their_own(apps, jobs, clock):
    await apps.set_limits("small", max_running=3)
    for app in ("big", "small", "without a record"):
        await submit(jobs, clock, app, 5)
    assert Counter([h.job.app for h in await claim(jobs, 20, limits=AppLimits(running=2))]) == {
        "big": 2,
        "small": 3,
        "without a record": 2,
    }
    await apps.set_limits("small", default_max=True)
    assert (await apps.app("small")).max_running is None


class OneWorker:
    """A worker's slots: what it takes it holds until `ends`."""

    def __init__(self, jobs, slots, share):
        self.jobs, self.slots, self.share, self.held = jobs, slots, share, []

    def count(self, app):
        return sum(one.job.app == app for one in self.held)

    async def claim(self):
        limits = AppLimits(share=self.share, held=Counter(one.job.app for one in self.held))
        taken = await claim(self.jobs, self.slots - len(self.held), limits=limits)
        self.held += taken
        return [one.job.app for one in taken]

    async def ends(self, place):
        one = self.held.pop(place % len(self.held))
        await self.jobs.change(one.job.id, lambda _: [(CANCELLED, None)], token=one.token)


@pytest.mark.parametrize(
    ("slots", "share", "expected"),
    [(10, 0.8, [8, 1, 1]), (20, 0.8, [16, 3, 1]), (10, 0.5, [5, 2, 1]), (2, 0.8, [1, 1, 0]), (5, 1.0, [5, 0, 0])],
)
async def test_long_jobs_of_one_app_leave_slots_for_the_others(jobs, clock, slots, share, expected):
    worker = OneWorker(jobs, slots, share)
    for app in ("big", "small", "third"):  # one after the other; nothing ends
        await submit(jobs, clock, app, 40)
        await worker.claim()
    assert [worker.count(app) for app in ("big", "small", "third")] == expected


async def test_a_slot_that_another_app_frees_is_taken_by_the_one_that_was_passed_over(jobs, clock):
    worker = OneWorker(jobs, 10, 0.8)
    await submit(jobs, clock, "small", 2)
    await worker.claim()
    await submit(jobs, clock, "big", 20)
    assert (len(await worker.claim()), await worker.claim()) == (6, []), "6 = 0.8 * (10 - 2), rounded down"
    await worker.ends(0)
    assert await worker.claim() == ["big"]


async def test_whoever_was_passed_over_has_saved_nothing_up(jobs, clock):
    worker = OneWorker(jobs, 10, 0.8)
    await submit(jobs, clock, "big", 60)
    await worker.claim()
    for _ in range(20):  # the other one's turns go on meanwhile
        await submit(jobs, clock, "small")
        assert await worker.claim() == ["small"]
        await worker.ends(-1)
    await submit(jobs, clock, "small", 20)
    while worker.held:
        await worker.ends(0)
    taken = Counter(await worker.claim())
    assert abs(taken["big"] - taken["small"]) <= 1
    assert taken.total() in (8, 9), "and something is left for a third"


STEPS = st.lists(st.tuples(st.sampled_from(["big", "small", "third", "end"]), st.integers(1, 30)), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(slots=st.integers(2, 24), share=st.sampled_from([0.5, 0.8, 0.95]), steps=STEPS)
async def test_no_single_app_makes_another_wait(valkey_url, slots, share, steps):
    """Whatever was submitted and has ended: no app has all slots, and whoever has none takes what is free."""
    from builders import FakeClock

    redis, clock = connect(valkey_url), FakeClock()
    try:
        await redis.flushall()
        jobs = Jobs(redis, clock)
        worker = OneWorker(jobs, slots, share)
        for what, size in steps:
            if what == "end":
                for _ in range(min(size, len(worker.held))):
                    await worker.ends(size)
            else:
                await submit(jobs, clock, what, size)
            await worker.claim()
            free = slots - len(worker.held)
            for app in ("big", "small", "third"):
                own, waiting = worker.count(app), await redis.zcard(keys.app_queue(app))
                assert own < slots
                assert not waiting or own or not free, "whoever has none takes what is free"
                assert not waiting or not own or own + 1 > share * (own + free), "and more is taken while it may be"
    finally:
        await redis.aclose()


async def test_terms_that_make_no_sense_are_refused(apps):
    for terms in ({"weight": 0}, {"weight": float("nan")}, {"weight": -1}, {"max_running": -1}, {"weight": 10**9}):
        with pytest.raises(Refused):
            await apps.set_limits("big", **terms)
    with pytest.raises(Refused):
        await apps.set_limits("nobody", weight=1)
    assert [(a.name, a.weight, a.max_running) for a in await apps.list_apps()] == [
        (name, 1.0, None) for name in ("big", "small", "third")
    ]


WEIGHTS = st.lists(st.integers(1, 4), min_size=2, max_size=4)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(weights=WEIGHTS, rounds=st.lists(st.integers(1, 7), min_size=3, max_size=6))
async def test_nobody_is_further_behind_than_one_turn(valkey_url, weights, rounds):
    """Whatever the weights and however the claims are cut: with everybody in line, shares are exact to a turn."""
    from builders import FakeClock

    redis, clock = connect(valkey_url), FakeClock()
    try:
        await redis.flushall()
        apps, jobs, got = Apps(redis, clock), Jobs(redis, clock), Counter()
        for n, weight in enumerate(weights):
            await apps.create_key(f"app{n}", ("submit",))
            await apps.set_limits(f"app{n}", weight=weight)
            await submit(jobs, clock, f"app{n}", sum(rounds))
        for size in rounds:
            got.update(await takers(jobs, size))
        total = sum(rounds)
        assert sum(got.values()) == total
        for n, weight in enumerate(weights):
            fair = total * weight / sum(weights)
            assert abs(got[f"app{n}"] - fair) <= len(weights), (weights, rounds, got)
        assert await places(redis, "job_of_nobody") == []
    finally:
        await redis.aclose()
