"""A delay near the job's deadline: the rule acts early where measured holds are long, and the job says when."""

from __future__ import annotations

from datetime import timedelta

import pytest
from arq.connections import ArqRedis
from in_process import LUNA, SOL, TERRA, Stage, until

from worker.clock import Clock, to_ms
from worker.jobs.record import Job
from worker.jobs.states import Outcome, Status
from worker.jobs.view import job_view
from worker.safety.hold_times import bucket_of
from worker.store import keys
from worker.store.provider.durations import read_durations

LATE = "[[sim: check_then_clear hold=600 tokens=20 rate=40]] go"  # a hold ends when the test lets the provider hurry
SOON = {"run_deadline_seconds": 300.0}  # far enough for a busy machine, nearer than the holds that were measured


async def measure(redis: ArqRedis, model: str, seconds: float, times: int = 20) -> None:
    day = to_ms(Clock().now()) // 86_400_000
    await redis.hset(keys.durations(day), f"{model}|hold|{bucket_of(seconds)}", times)


def rule(action: str, after: float = 3600) -> dict[str, object]:
    return {"on_delay": {"action": action, "after_seconds": after, "silence_seconds": 0}, **SOON}


def next_of(job: Job) -> dict[str, object]:
    return dict(job_view(job, {}, None, None, "")["safety"]["next_action"] or {})


@pytest.mark.parametrize("action", ["offer", "switch", "race", "draft"])
async def test_where_waiting_will_miss_the_deadline_the_rule_acts_at_once(
    redis: ArqRedis, valkey_url: str, action: str
) -> None:
    await measure(redis, TERRA, 900)  # another model of the family
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit(LATE, policy=rule(action))
        acted = await stage.reaches(job_id, "an act", lambda j: j.offer or len(j.attempts) > 1)
        check = acted.checks[0]
        assert check.next_action is not None
        assert (check.next_action.action, check.next_action.because) == (action, "deadline")
        stage.hurry()
        job = await stage.settled(job_id)
        assert job.status is Status.COMPLETED
        assert (job.served_model == LUNA) == (action in {"switch", "race"} and job.winner == 2)


async def test_else_the_policys_own_time_counts_and_the_job_says_when(redis: ArqRedis, valkey_url: str) -> None:
    await measure(redis, SOL, 5)  # most holds end in time
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        waiting = await stage.submit(LATE, policy=rule("wait"))
        switching = await stage.submit(LATE, policy=rule("switch", 200))
        patient = await stage.submit(LATE, policy=rule("switch"))
        jobs = {
            name: await stage.reaches(job_id, "a check", lambda j: j.open_checks)
            for name, job_id in (("wait", waiting), ("switch", switching), ("late", patient))
        }
        due = jobs["switch"].checks[0].started_at + timedelta(seconds=200)
        found = next_of(jobs["switch"])
        assert (found["action"], found["because"]) == ("switch", "after_seconds")
        assert abs((found["at"] - due).total_seconds()) < 30  # type: ignore[operator]
        for name in ("wait", "late"):  # the deadline comes before the rule
            found, started = next_of(jobs[name]), jobs[name].started_at
            assert started is not None
            assert (found["action"], found["because"]) == ("expire", "run_deadline")
            assert found["at"] == started + timedelta(seconds=300)
        message = job_view(jobs["wait"], {}, None, None, "")["safety"]["message"]
        assert "nothing needs to be done" in message
        stage.hurry()
        for job_id in (waiting, switching, patient):
            job = await stage.settled(job_id)
            assert (job.status, job.served_model) == (Status.COMPLETED, SOL)
            assert next_of(job) == {}
        holds = (await read_durations(redis, Clock())).holds(stage.settings().catalogue(), SOL)
        assert (holds.samples, sum(holds.finishing.values()), holds.cut) == (23, 3, {})


async def test_a_hold_that_was_cut_short_counts_as_that(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job = await stage.settled(await stage.submit(LATE, policy=rule("switch", 0.2)))
        assert job.attempts[0].outcome is Outcome.SUBSTITUTED
        durations = await read_durations(redis, Clock())
        holds = durations.holds(stage.settings().catalogue(), LUNA)
        assert (holds.samples, sum(holds.cut.values())) == (0, 1)
        assert sum(durations.calls().values()) == 2


async def test_the_plan_is_told_anew_by_the_next_worker(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        first = await stage.worker()
        job_id = await stage.submit(LATE, policy=rule("switch", 250))
        before = await stage.reaches(job_id, "a check", lambda j: j.open_checks)
        assert next_of(before)["action"] == "switch"
        await stage.stop(first)
        await stage.worker()

        async def plans() -> bool:
            job = await stage.job(job_id)
            return len(job.checks) == 2 and next_of(job).get("action") == "switch"

        await until("the plan of the second worker", plans)
