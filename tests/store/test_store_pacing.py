"""Limits: who waits, for how long, in which order, and that nothing is lost or leaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from builders import CANCELLED, STARTED, backoff, new_job
from store_inspection import fall_due, lapse, sound

from worker.clock import Clock
from worker.jobs.accounts import AccountBindings
from worker.jobs.catalogue import Catalogue
from worker.jobs.model import Family, Model
from worker.safety.provider_limits import Allowance, ProviderLimits
from worker.store import keys
from worker.store.admission.pace_state import read_pacing
from worker.store.admission.pacing import Charge, Meter, PaceRules
from worker.store.apps import Apps
from worker.store.commands import flatten
from worker.store.connection.lua_scripts import RUN_COMMANDS, script
from worker.store.jobs.stored_job import AppLimits

SOL, LUNA = "gpt-5.6-sol", "gpt-5.6-luna"
METER = Meter(SOL)
CALL = Charge(100, 500)


def rules(mode="headers", end_user_max=0, widened=0, **limits):
    sol = Model(id=SOL, family="gpt-5.6", aliases=("gpt-5.6",), **limits)
    models = {SOL: sol, LUNA: Model(id=LUNA, family="gpt-5.6")}
    made = PaceRules(Catalogue(models, {"gpt-5.6": Family()}), mode, end_user_max, widened)
    made.set_widened({("default", "gpt-5.6")})
    return made


async def submit(jobs, clock, count=1, app="acme", model=SOL, **more):
    names = []
    for _ in range(count):
        clock.step(0.001)
        names.append((await jobs.submit(new_job(app=app, requested_model=model, **more)))[0].job.id)
    return names


async def claim(jobs, limit=100, rule=None, worker="w1", **given):
    limits = AppLimits(rules=(rule or rules()).text, **given)
    return (await jobs.claim(worker, limit, 60.0, limits=limits))[1]


async def tell(redis, change):
    """Do what a commit does with this change."""
    run, nobody = script(redis, "admission/quarantine_of", *RUN_COMMANDS, "jobs/commit"), keys.job("job_none")
    await run(keys=[nobody, keys.QUARANTINE], args=["0", "", "c" * 32, "", "", *flatten([change.command()])])
    await redis.delete(nobody)


def limits_of(limit, left, reset=None):
    return ProviderLimits(requests=Allowance(limit, left, reset))


async def use_up(redis, limit=600):
    """Leave nothing of the provider's limit of calls, for as long as the test takes."""
    await tell(redis, METER.answered(CALL, limits_of(limit, 0)))
    await redis.hset(keys.meter(METER.name), mapping={"requests_left": 0, "requests_rate": 1e-9})


async def refill(redis):
    """Let the whole limit be there again, and look at what waits."""
    await redis.hset(keys.meter(METER.name), mapping={"requests_left": 600})
    await look_again(redis)


async def look_again(redis):
    """Let every limit be looked at now, as if its time had come."""
    for limit in await redis.zrange(keys.LIMITS, 0, -1):
        await redis.zadd(keys.LIMITS, {limit: 0})


def ids(held):
    return [one.job.id for one in held]


async def test_what_the_provider_has_left_is_started_and_the_rest_waits_with_reason_and_time(jobs, clock, redis):
    first = await submit(jobs, clock)
    assert ids(await claim(jobs)) == first
    await tell(redis, METER.answered(CALL, limits_of(60, 4)))
    names = await submit(jobs, clock, 6)
    assert ids(await claim(jobs)) == names[:3], "four, less what comes too early because calls overtake one another"
    assert await redis.zcard(keys.LATER) == 3
    assert await redis.zcard(keys.READY) == 0
    waits = [(await jobs.load(name)).waiting_for for name in names[3:]]
    assert {(one["reason"], one["account"], one["model"]) for one in waits} == {("provider_rate", "default", SOL)}
    untils = [one["until"] for one in waits]
    assert untils == sorted(untils)
    assert 1.5 < (untils[2] - untils[0]).total_seconds() < 2.5, "one a second, by the limit of 60 a minute"
    assert (await jobs.load(names[0])).waiting_for is None
    await sound(redis, jobs, names)


async def test_a_limit_that_comes_back_lets_jobs_through_in_their_order(jobs, clock, redis):
    await submit(jobs, clock)
    await claim(jobs)
    await use_up(redis)
    names = await submit(jobs, clock, 3)
    assert await claim(jobs) == []
    await redis.hset(keys.meter(METER.name), mapping={"requests_left": 1})
    late = await submit(jobs, clock)
    urgent = await submit(jobs, clock, priority="high")
    assert await claim(jobs) == [], "who comes later goes behind those who wait"
    await refill(redis)
    assert ids(await claim(jobs)) == [*urgent, *names, *late]
    assert not await redis.exists(keys.LIMITS) or not (await read_pacing(redis, clock))["waiting"]


async def test_apps_that_wait_take_turns_and_a_model_without_rate_holds_up_no_other(jobs, clock, redis):
    await submit(jobs, clock)
    await claim(jobs)
    await use_up(redis)
    await submit(jobs, clock, 250, app="big")
    other = await submit(jobs, clock, 2, app="big", model=LUNA) + await submit(jobs, clock, 2, app="third", model=LUNA)
    small = await submit(jobs, clock, 5, app="small")
    taken = ids(await claim(jobs, 20))
    assert set(taken) >= set(other[2:]), "the third app has its turn in the same claim"
    for _ in range(5):
        taken += ids(await claim(jobs, 20))
    assert sorted(taken) == sorted(other)
    await refill(redis)
    held = await claim(jobs, 10)
    assert Counter(one.job.app for one in held) == {"big": 5, "small": 5}
    assert {one.job.id for one in held if one.job.app == "small"} == set(small)


async def test_a_429_closes_the_model_for_all_workers_but_one_call_a_minute(jobs, clock, redis):
    await submit(jobs, clock)
    await claim(jobs)
    await tell(redis, METER.refused(CALL, ProviderLimits(), 86_400.0))
    names = await submit(jobs, clock, 3) + await submit(jobs, clock, model=LUNA)
    assert ids(await claim(jobs, worker="w2")) == names[3:]
    (meter,) = [one for one in (await read_pacing(redis, clock))["meters"] if one["model"] == SOL]
    assert 30 < (meter["closed_until"] - Clock().now()).total_seconds() <= 61, "a minute at most, whatever it asked for"
    await redis.hset(keys.meter(METER.name), mapping={"last_call": 0})
    await look_again(redis)
    assert len(await claim(jobs)) == 1, "one tries it"


@pytest.mark.parametrize(
    "limits",
    [ProviderLimits(), limits_of(10**9, 10**9, 1.0), limits_of(10**9, 10**9 - 1, 0.0)],
    ids=["none", "1s", "0s"],
)
async def test_headers_that_say_nothing_usable_slow_nobody(jobs, clock, redis, limits):
    await submit(jobs, clock)
    await claim(jobs)
    await tell(redis, METER.answered(CALL, limits))
    await submit(jobs, clock, 60)
    assert len(await claim(jobs)) == 60


async def test_a_limit_that_answers_no_longer_name_is_forgotten_after_a_minute(jobs, clock, redis):
    await submit(jobs, clock)
    await claim(jobs)
    await tell(redis, METER.answered(CALL, limits_of(1, 0, 86_400.0)))
    names = await submit(jobs, clock, 40)
    await tell(redis, METER.answered(CALL, ProviderLimits()))
    assert await claim(jobs) == [], "an answer without the header may be an exception"
    named_at = int(float(await redis.hget(keys.meter(METER.name), "requests_told")))
    await redis.hset(keys.meter(METER.name), mapping={"requests_told": named_at - 60_000})
    await tell(redis, METER.answered(CALL, ProviderLimits()))
    await look_again(redis)
    assert ids(await claim(jobs)) == names
    (meter,) = (await read_pacing(redis, clock))["meters"]
    assert meter["requests_limit"] is None


async def test_far_too_high_an_estimate_and_one_wrong_count_of_tokens_stop_nothing_for_long(jobs, clock, redis):
    await submit(jobs, clock)
    rule = rules(tpm=60_000)
    await claim(jobs, rule=rule)
    full = ProviderLimits(tokens=Allowance(30_000, 30_000))
    await tell(redis, METER.answered(CALL, full))
    await tell(redis, METER.charged(CALL))  # of a worker that died: nobody will say how it ended
    await tell(redis, METER.estimated(10**9))
    row = await redis.hgetall(keys.meter(METER.name))
    assert float(row[b"tokens_left"]) >= -30_000
    await tell(redis, METER.used(Charge(0, 10**9), 600, 500))
    await tell(redis, METER.used(CALL, 10**9, 10**9))
    row = {name: float(value) for name, value in (await redis.hgetall(keys.meter(METER.name))).items()}
    assert row[b"mean_output"] <= 5_000
    assert row[b"own_tokens_full"] - row[b"last_call"] < 3_700_000
    await redis.hset(keys.meter(METER.name), mapping={"own_tokens_full": 0, "last_call": row[b"last_call"] + 10**9})
    await submit(jobs, clock)
    await claim(jobs, rule=rules())
    (until,) = [at for _, at in await redis.zrange(keys.LIMITS, 0, -1, withscores=True)]
    assert until - row[b"last_call"] < 70_000, "a clock that was set back"


async def test_the_operators_tokens_that_a_call_did_not_use_are_given_back_though_headers_tell_of_tokens(
    jobs, clock, redis
):
    rule = rules(tpm=6 * 1100)
    await submit(jobs, clock, 5)
    assert len(await claim(jobs, rule=rule)) == 2
    await tell(redis, METER.answered(CALL, ProviderLimits(tokens=Allowance(10**6, 10**6))))
    await tell(redis, METER.used(Charge(0, 1000), 3, 3))
    await look_again(redis)
    assert len(await claim(jobs, rule=rule)) >= 1


async def test_a_job_far_back_in_a_line_that_hardly_moves_is_not_told_of_years(jobs, clock, redis):
    await submit(jobs, clock)
    await claim(jobs)
    await use_up(redis)
    names = await submit(jobs, clock, 5)
    assert await claim(jobs) == []
    wait = (await jobs.load(names[-1])).waiting_for
    assert (wait["reason"], (wait["until"] - Clock().now()).total_seconds() < 400) == ("provider_rate", True)


async def test_unknown_limits_begin_with_a_few_calls_and_an_answer_opens_the_rest(jobs, clock, redis):
    names = await submit(jobs, clock, 20)
    assert ids(await claim(jobs)) == names[:8]
    await tell(redis, METER.answered(CALL, ProviderLimits()))
    assert ids(await claim(jobs)) == names[8:]


async def test_own_limits_of_calls_and_tokens_hold_before_any_answer(jobs, clock, redis):
    await submit(jobs, clock, 5)
    assert len(await claim(jobs, rule=rules("limits", rpm=12))) == 2, "ten seconds' worth"
    assert (await read_pacing(redis, clock))["waiting"][0]["jobs"] == 3
    await redis.flushdb()
    await submit(jobs, clock, 5)
    assert len(await claim(jobs, rule=rules("limits", tpm=6 * 1100))) == 2, "each is about 500 tokens"
    await tell(redis, METER.used(Charge(0, 1000), 3, 3))
    await look_again(redis)
    assert len(await claim(jobs, rule=rules("limits", tpm=6 * 1100))) >= 1, "what was not used is given back"


async def test_off_and_no_rules_let_everything_through_and_free_what_waited(jobs, clock, redis):
    await submit(jobs, clock, 20)
    assert len(await claim(jobs, rule=rules("limits", rpm=6))) == 1
    await look_again(redis)
    assert len(await claim(jobs, rule=rules("off", rpm=6))) == 19


async def test_a_model_has_so_many_jobs_at_once_over_all_workers_and_a_dead_worker_leaks_no_place(jobs, clock, redis):
    names, rule = await submit(jobs, clock, 5), rules(max_concurrent=2)
    first = [*await claim(jobs, rule=rule), *await claim(jobs, rule=rule, worker="w2")]
    assert ids(first) == names[:2]
    assert (await jobs.load(names[4])).waiting_for["reason"] == "model_concurrency"
    await lapse(redis, names[0])
    rescued = await claim(jobs, rule=rule, worker="w3")
    assert ids(rescued) == names[:1], "the next worker takes it with its place"
    job = await jobs.change(names[0], lambda _: [(STARTED, None)], token=rescued[0].token)
    await jobs.change(names[0], lambda _: [(backoff(3600, Clock().now()), None)], job=job, token=rescued[0].token)
    assert ids(await claim(jobs, rule=rule)) == names[2:3], "a place is free at once when a job waits or ends"
    stale = keys.places(f"model:default:{SOL}")
    await redis.sadd(stale, "job_gone1", "job_gone2")
    await jobs.change(names[1], lambda _: [(STARTED, None)], token=first[1].token)
    await jobs.change(names[1], lambda _: [(CANCELLED, None)], token=first[1].token)
    assert ids(await claim(jobs, rule=rule)) == names[3:4]
    assert await redis.smembers(stale) == {names[2].encode(), names[3].encode()}


async def test_an_end_user_has_so_many_jobs_at_once_and_an_app_may_say_how_many(jobs, clock, redis):
    apps = Apps(redis, clock)
    for app in ("acme", "wide"):
        await apps.create_key(app, ("submit",))
    await apps.set_limits("wide", end_user_max=3)
    await tell(redis, METER.answered(CALL, ProviderLimits()))
    names = await submit(jobs, clock, 3, safety_identifier="u1")
    others = await submit(jobs, clock, 1, safety_identifier="u2") + await submit(jobs, clock, 2)
    wide = await submit(jobs, clock, 4, app="wide", safety_identifier="u3")
    held = await claim(jobs, rule=rules(end_user_max=1))
    assert sorted(ids(held)) == sorted([names[0], *others, *wide[:3]])
    wait = (await jobs.load(names[1])).waiting_for
    assert (wait["reason"], wait["model"], wait["until"]) == ("end_user_concurrency", None, None)
    waiting = (await read_pacing(redis, clock))["waiting"]
    assert [(row["reason"], row["jobs"]) for row in waiting] == [("end_user_concurrency", 3)], "no end user is named"
    assert await apps.set_limits("wide", default_end_user_max=True) == replace(
        await apps.app("wide"), end_user_max=None
    )


async def test_accounts_have_meters_and_places_of_their_own(jobs, clock, redis):
    models = {SOL: Model(id=SOL, family="gpt-5.6", rpm=6), LUNA: Model(id=LUNA, family="gpt-5.6", rpm=6)}
    bound = PaceRules(
        Catalogue(models, {"gpt-5.6": Family()}),
        bindings=AccountBindings(apps={"big": "third"}, models={LUNA: "second"}),
        accounts=["default", "second", "third"],
    )
    await submit(jobs, clock, 2)
    await submit(jobs, clock, 2, model=LUNA)
    await submit(jobs, clock, 2, app="big")
    assert len(await claim(jobs, rule=bound)) == 3, "one of each account"
    meters = {(one["account"], one["model"]) for one in (await read_pacing(redis, clock))["meters"]}
    assert meters == {("default", SOL), ("second", LUNA), ("third", SOL)}
    waiting = (await read_pacing(redis, clock))["waiting"]
    assert {(one["account"], one["model"], one["jobs"]) for one in waiting} == {(*one, 1) for one in meters}


async def test_a_family_under_widened_checks_is_slowed_as_set_and_only_then(jobs, clock, redis):
    await submit(jobs, clock, 4)
    await submit(jobs, clock, 4, model=LUNA)
    slowed = rules(widened=12)
    assert len(await claim(jobs, rule=slowed)) == 2, "of the whole family"
    assert {row["reason"] for row in (await read_pacing(redis, clock))["waiting"]} == {"account_checks"}
    slowed.set_widened(())
    await look_again(redis)
    assert len(await claim(jobs, rule=slowed)) == 6, "and it ends with the state"


async def test_what_waits_can_be_cancelled_and_comes_by_itself_if_its_limit_is_lost(jobs, clock, redis):
    await submit(jobs, clock)
    await claim(jobs)
    await use_up(redis)
    names = await submit(jobs, clock, 3)
    await claim(jobs)
    await jobs.change(names[0], lambda _: [(CANCELLED, None)])
    assert (await jobs.load(names[0])).job.settled
    await refill(redis)
    await redis.delete(keys.LIMITS, keys.limit_apps(f"rate:default:{SOL}"))
    assert await claim(jobs) == []
    await fall_due(redis, names[1])
    await fall_due(redis, names[2])
    assert ids(await claim(jobs)) == names[1:]
    await sound(redis, jobs, names)


async def test_a_job_that_only_reads_on_waits_for_nothing(jobs, clock, redis):
    name = (await submit(jobs, clock))[0]
    assert b"default\0" in await redis.hget(keys.job(name), "call")
    await redis.hset(keys.job(name), "call", "")
    await tell(redis, METER.refused(CALL, ProviderLimits(), 50.0))
    assert ids(await claim(jobs)) == [name]
