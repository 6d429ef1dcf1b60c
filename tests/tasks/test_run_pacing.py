"""Pacing end to end: several workers on one limit, a 429, a killed worker, an account under extra checks."""

from __future__ import annotations

import pytest
from in_process import LUNA, SOL, Stage, until

from worker.clock import Clock
from worker.jobs.states import Outcome, Status
from worker.settings import Settings
from worker.store import keys
from worker.store.admission.pace_state import read_pacing

NORMAL = "[[sim: normal tokens=2]] Hello"


@pytest.fixture
async def stage(redis, valkey_url):
    async with Stage(redis, valkey_url, speed=50) as running:
        yield running


async def test_three_workers_share_the_providers_limit_and_almost_nothing_is_refused(stage):
    stage.sim.set_rates(rpm=1200, used=0.97)
    jobs = [await stage.submit(f"{NORMAL} {number}") for number in range(50)]
    for _ in range(3):
        await stage.worker()
    done = [await stage.settled(job) for job in jobs]
    assert {job.status for job in done} == {Status.COMPLETED}
    assert stage.sim.calls()["limited"] <= 4, "of 50, with 36 calls left and unknown limits at the start"
    assert sum(len(job.attempts) for job in done) - stage.sim.calls()["limited"] == 50


async def test_tokens_are_paced_like_calls(stage):
    stage.sim.set_rates(tpm=120_000, used=0.95)
    await stage.worker()
    text = "word " * 800  # a thousand tokens, and 2,000 a second come back
    first = await stage.settled(await stage.submit(NORMAL + text))
    late = await stage.submit(NORMAL + text * 20, policy={"queue_deadline_seconds": 0.5})  # twenty thousand tokens
    jobs = [await stage.submit(f"{NORMAL} {number} {text}") for number in range(6)]
    expired = await stage.settled(late)
    assert (expired.status, expired.attempts, expired.error.code) == (Status.EXPIRED, (), "queue_deadline")
    assert "waiting for the rate limit of the provider" in expired.error.message
    done = [first, *[await stage.settled(job) for job in jobs]]
    assert {(job.status, len(job.attempts)) for job in done} == {(Status.COMPLETED, 1)}


async def test_a_429_makes_the_others_wait_without_an_attempt_and_another_model_goes_on(stage, redis):
    await stage.worker()
    refused = await stage.submit("[[sim: rate_limited times=1 retry_after=2 tokens=2]] Hello")
    await stage.reaches(refused, "the 429", lambda job: job.attempts and job.attempts[0].outcome is not None)
    others = [await stage.submit(NORMAL) for _ in range(3)]
    elsewhere = await stage.settled(await stage.submit(NORMAL, model=LUNA))
    (meter,) = [one for one in (await read_pacing(redis, Clock()))["meters"] if one["model"] == SOL]
    assert meter["closed_until"] is not None
    assert elsewhere.finished_at < meter["closed_until"]
    for job in [await stage.settled(name) for name in others]:
        assert [attempt.outcome for attempt in job.attempts] == [Outcome.COMPLETED]
        assert job.attempts[0].started_at >= meter["closed_until"]
    assert [a.outcome for a in (await stage.settled(refused)).attempts] == [Outcome.RATE_LIMITED, Outcome.COMPLETED]


async def test_a_killed_workers_job_keeps_its_place_until_it_ends_elsewhere(stage, tmp_path):
    models = tmp_path / "models.toml"
    models.write_text(f'[models."{SOL}"]\nmax_concurrent = 1\n')
    first = await stage.worker(models_file=models, upstream="stream")
    running = await stage.submit("[[sim: normal tokens=500 rate=20]] Hello")
    await stage.reaches(running, "its call", lambda job: job.attempts and job.attempts[0].response_id)
    waiting = await stage.submit(NORMAL)
    await stage.crash(first)
    await stage.worker(models_file=models, upstream="stream")
    await stage.lapse(running)
    await stage.reaches(running, "its second call", lambda job: len(job.attempts) == 2)
    assert (await stage.job(waiting)).status is Status.QUEUED
    stage.hurry()
    assert (await stage.settled(running)).status is Status.COMPLETED
    assert (await stage.settled(waiting)).status is Status.COMPLETED
    assert not await stage.redis.exists(keys.places(f"model:default:{SOL}"))


async def test_an_account_under_extra_checks_is_slowed_when_a_setting_says_so(stage):
    worker = await stage.worker(widened_rpm=6)
    checked = "[[sim: check_then_clear hold=0.1 tokens=2]] Hello"
    for number in range(20):
        await stage.submit(checked, safety_identifier=f"u_{number % 4}")
    await until("them to end", lambda: _settled(stage, 20))
    await worker.components.account_monitor.report_changes()
    jobs = [await stage.submit(NORMAL) for _ in range(3)]
    assert (await stage.settled(jobs[0])).status is Status.COMPLETED

    async def rest_waits():
        return [(await stage.jobs.load(name)).waiting_for for name in jobs[1:]]

    await until("the rest to wait", lambda: _all(rest_waits))
    assert {(wait["reason"], wait["model"]) for wait in await rest_waits()} == {("account_checks", "gpt-5.6")}
    worker.components.context.pace.set_widened(())
    assert [(await stage.settled(name)).status for name in jobs[1:]] == [Status.COMPLETED] * 2


async def _settled(stage, count):
    return await stage.redis.zcard(keys.SETTLED) >= count


async def _all(look):
    return all(await look())


def test_the_settings_of_pacing_have_bounds():
    assert Settings(_env_file=None).pacing == "headers"
    with pytest.raises(ValueError, match="widened_rpm"):
        Settings(_env_file=None, widened_rpm=-1)
