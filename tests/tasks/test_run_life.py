"""What happens to a running job from outside: cancel, deadlines, a dead worker, a shutdown, a lost lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from arq.connections import ArqRedis
from in_process import Stage, until
from waiting import stopwatch

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.record import Job
from worker.jobs.states import CheckEnd, Evidence, Outcome, Status
from worker.main import WorkerProcess
from worker.store import keys
from worker.store.jobs.control_requests import JobControl, control_commands

LONG = "[[sim: normal tokens=4000 rate=40]] tell me"  # it is written until a test lets the provider hurry


def output_began(job: Job) -> bool:
    return any(a.first_output_at for a in job.attempts)


async def ask_to_cancel(stage: Stage, job_id: str) -> None:
    await JobControl(stage.jobs).request_cancel(job_id, by="test")


async def test_cancel_reaches_a_running_stream_within_a_second(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1, lease_seconds=3600) as stage:  # no renewal tells of it
        await stage.worker()
        job_id = await stage.submit(LONG)
        await stage.reaches(job_id, "output", output_began)
        async with stopwatch(redis) as watch:
            await ask_to_cancel(stage, job_id)
            job = await stage.settled(job_id)
            assert watch.seconds < 1.0
        assert (job.status, job.attempts[0].outcome) == (Status.CANCELLED, Outcome.CANCELLED)
        assert job.billed_on_cancel is True
        ended = (await stage.jobs.trail(job_id))[-1]["data"]
        assert (ended["billed"], ended["bill"]) == (True, "unknown"), "the cancellation is answered without a usage"

        async def upstream_stopped() -> bool:
            calls = stage.sim.calls()
            return calls["cancels"] == 1 and calls["open_streams"] == 0

        await until("the provider to be told", upstream_stopped)
        assert await stage.output(job_id) is None


async def test_a_lost_cancel_message_is_heard_at_the_next_renewal(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1, lease_seconds=1.5) as stage:
        await stage.worker()
        job_id = await stage.submit(LONG)
        await stage.reaches(job_id, "output", output_began)
        kept_only = control_commands(job_id, "cancel")[:1]  # without the message
        await stage.jobs.change(job_id, lambda _: [(ev.CancelRequested(by="test"), None)], writes=lambda _: kept_only)
        assert (await stage.settled(job_id)).status is Status.CANCELLED


async def test_the_run_deadline_ends_a_silent_job(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit("[[sim: silent_delay hold=60]] go", policy={"run_deadline_seconds": 1.0})
        job = await stage.settled(job_id)
        assert (job.status, job.reason, job.attempts[0].outcome) == (Status.EXPIRED, "run_deadline", Outcome.TIMED_OUT)
        assert job.error is not None
        assert job.error.advice


async def test_the_queue_deadline_ends_a_job_that_nobody_started(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        nobody = WorkerProcess(stage.settings(), redis)  # sweeps, but claims nothing
        job_id = await stage.submit("hello", policy={"queue_deadline_seconds": 0.3})

        async def swept() -> bool:
            await nobody.components.sweeper.sweep()
            return (await stage.job(job_id)).settled

        await until("the sweep to expire it", swept)
        await nobody.parts.aclose()
        job = await stage.job(job_id)
        assert (job.status, job.reason, job.attempts) == (Status.EXPIRED, "queue_deadline", ())


async def test_not_before_waits_and_then_runs(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage, stopwatch(redis) as watch:
        await stage.worker()
        at = Clock().now() + timedelta(seconds=1)
        job_id = await stage.submit("hello", not_before=at)
        assert (await stage.job(job_id)).status is Status.SCHEDULED
        job = await stage.settled(job_id)
        assert job.started_at is not None
        assert 0 <= (job.started_at - at).total_seconds() < 0.6 + watch.lost


async def test_a_dead_workers_background_job_is_resumed_and_never_sent_again(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        first = await stage.worker(lease_seconds=4)
        job_id = await stage.submit(LONG)
        await stage.reaches(job_id, "output", output_began)

        async def some_text_kept() -> bool:
            return bool(await redis.llen(keys.text(job_id, 1)) > 3)

        await until("text in Redis", some_text_kept)
        await stage.crash(first)
        async with stopwatch(redis) as watch:
            await stage.worker()
            await until("job.rescued", lambda: _has(stage, job_id, "job.rescued"))
            assert watch.seconds < 4.0 + 5.0
        stage.hurry()
        job = await stage.settled(job_id)
        calls = stage.sim.calls()
        assert (job.status, len(job.attempts), calls["creates"], calls["resumes"]) == (Status.COMPLETED, 1, 1, 1)
        assert job.attempts[0].resumed == 1
        first = job.attempts[0]
        assert first.first_event_at is not None
        assert first.first_event_at <= (first.first_output_at or first.first_event_at)
        answer = await stage.jobs.load_output(job_id)
        assert answer is not None
        assert calls["tokens_billed"]["output"] == 4000


def _true_when(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return condition()

    return look


async def _has(stage: Stage, job_id: str, event: str) -> bool:
    return event in await stage.types(job_id)


async def test_a_dead_workers_stream_is_lost_and_starts_again(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=2, upstream="stream") as stage:
        first = await stage.worker()
        job_id = await stage.submit(LONG)
        await stage.reaches(job_id, "output", output_began)
        await until("text in Redis", lambda: redis.llen(keys.text(job_id, 1)))
        await stage.crash(first)
        await stage.lapse(job_id)
        stage.hurry()
        await stage.worker()
        job = await stage.settled(job_id)
        assert [a.outcome for a in job.attempts] == [Outcome.LOST, Outcome.COMPLETED]
        lost = job.attempts[0]
        assert lost.usage is not None
        assert lost.usage.estimated
        assert lost.usage.output_tokens > 0
        assert job.wasted_cost == lost.cost
        assert "job.rescued" in await stage.types(job_id)


async def test_lost_attempts_count_against_max_attempts(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1, upstream="stream") as stage:
        first = await stage.worker()
        job_id = await stage.submit(LONG, policy={"max_attempts": 1})
        await stage.reaches(job_id, "output", output_began)
        await stage.crash(first)
        await stage.lapse(job_id)
        await stage.worker()
        job = await stage.settled(job_id)
        assert (job.status, job.error and job.error.code) == (Status.FAILED, "attempts_exhausted")
        assert stage.sim.calls()["creates"] == 1


async def test_a_check_goes_on_through_a_crash(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        first = await stage.worker()
        job_id = await stage.submit("[[sim: check_then_clear hold=600]] go")
        before = (await stage.reaches(job_id, "a check", lambda j: j.status is Status.CHECKING)).checks
        await stage.crash(first)
        await stage.lapse(job_id)
        await stage.worker()
        await until("job.rescued", lambda: _has(stage, job_id, "job.rescued"))
        assert (await stage.job(job_id)).status is Status.CHECKING, "the hold goes on, and so does the check"
        released = Clock().now()
        stage.hurry()
        job = await stage.settled(job_id)
        assert job.status is Status.COMPLETED
        (check,) = job.checks
        assert (check.evidence, check.ended_by) == (Evidence.SIGNALLED, CheckEnd.OUTPUT)
        assert check.ended_at is not None
        assert check.started_at == before[0].started_at
        assert check.ended_at >= released, "it lasts as long as the hold"
        assert stage.sim.calls()["creates"] == 1


async def test_a_shutdown_hands_a_background_job_over_at_once(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1, lease_seconds=60) as stage:
        first = await stage.worker()
        job_id = await stage.submit(LONG)
        await stage.reaches(job_id, "output", output_began)
        async with stopwatch(redis) as watch:
            await stage.stop(first)
            assert watch.seconds < 2.0
        assert stage.sim.calls()["open_streams"] == 0, "it does not wait for the answer"
        waiting = await stage.job(job_id)
        assert waiting.status is Status.QUEUED
        stage.hurry()
        await stage.worker()
        job = await stage.settled(job_id)
        calls = stage.sim.calls()
        assert (job.status, len(job.attempts), calls["creates"], calls["cancels"]) == (Status.COMPLETED, 1, 1, 0)
        assert "job.interrupted" in await stage.types(job_id)
        assert "job.rescued" not in await stage.types(job_id)


async def test_a_shutdown_lets_a_short_stream_finish(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1, upstream="stream", drain_seconds=600) as stage:
        first = await stage.worker()
        job_id = await stage.submit(LONG)
        await stage.reaches(job_id, "output", output_began)
        stopping = asyncio.create_task(stage.stop(first))
        await until("it to drain", _true_when(lambda: first.draining))
        stage.hurry()
        await stopping
        job = await stage.job(job_id)
        assert (job.status, len(job.attempts)) == (Status.COMPLETED, 1)


async def test_a_stream_that_outlasts_the_drain_runs_again_and_no_attempt_is_counted(
    redis: ArqRedis, valkey_url: str
) -> None:
    async with Stage(redis, valkey_url, speed=1, upstream="stream", drain_seconds=0.2) as stage:
        first = await stage.worker()
        job_id = await stage.submit(LONG, policy={"max_attempts": 1})
        await stage.reaches(job_id, "output", output_began)
        await stage.stop(first)
        assert (await stage.job(job_id)).status is Status.QUEUED
        stage.hurry()
        await stage.worker()
        job = await stage.settled(job_id)
        assert [a.outcome for a in job.attempts] == [Outcome.INTERRUPTED, Outcome.COMPLETED]


async def test_a_worker_that_lost_its_lease_writes_nothing_more(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        first = await stage.worker()
        job_id = await stage.submit(LONG)
        await stage.reaches(job_id, "output", output_began)
        renewals = first.components.context.leases.renew

        async def frozen() -> None:
            """The first worker is as if stopped: it renews nothing."""

        first.components.context.leases.renew = frozen  # type: ignore[method-assign]
        first.components.claimer.allow_pick_jobs = False
        await stage.lapse(job_id)
        await stage.worker()
        await until("job.rescued", lambda: _has(stage, job_id, "job.rescued"))
        first.components.context.leases.renew = renewals  # type: ignore[method-assign]
        stage.hurry()
        job = await stage.settled(job_id)
        types = await stage.types(job_id)
        assert job.status is Status.COMPLETED
        assert types.count("job.completed") == 1
        assert stage.sim.calls()["creates"] == 1

        async def let_go() -> bool:
            return not first.runs

        await until("the first worker to let go", let_go)
        answer = await stage.jobs.load_output(job_id)
        assert answer is not None
        assert len(answer["output_text"].split()) <= 4000, "no doubled output"


async def test_many_jobs_share_two_workers_and_each_runs_once(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=50) as stage:
        await asyncio.gather(stage.worker(), stage.worker())
        ids = await asyncio.gather(*(stage.submit(f"hello {n}") for n in range(60)))
        for job_id in ids:
            assert (await stage.settled(job_id)).status is Status.COMPLETED
        assert stage.sim.calls()["creates"] == 60
        for place in (keys.READY, keys.LATER, keys.LEASED, keys.DEADLINE):
            assert await redis.zcard(place) == 0


async def test_a_fault_of_ours_ends_the_job_and_says_so(
    redis: ArqRedis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async with Stage(redis, valkey_url) as stage:
        worker = await stage.worker()
        monkeypatch.setattr(type(worker.components.context.catalogue), "price", breaks)
        job = await stage.settled(await stage.submit("hello"))
        assert (job.status, job.error and job.error.code) == (Status.FAILED, "internal_error")
        assert job.attempts[0].outcome is Outcome.LOST
