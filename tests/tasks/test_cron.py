"""Cron and the API's small requests run on stock arq: once among all workers, and never in the slot of a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import arq.worker
import pytest
from arq.connections import ArqRedis
from in_process import LIMIT, LUNA, SOL, TERRA, Stage, until
from pydantic import ValidationError

from worker.settings import Settings
from worker.store.admission.model_access import PROBE_FUNCTION, ModelAccessStore, known_access, request_probe
from worker.tasks.maintenance import cron
from worker.tasks.maintenance.cron import CronWorker, every


class Counted:
    """Probes that only count themselves."""

    def __init__(self) -> None:
        self.runs = 0

    async def probe(self) -> None:
        self.runs += 1


async def always(_: float) -> bool:
    return True


@asynccontextmanager
async def running(*workers: CronWorker) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in workers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def probe_counts(stage: Stage) -> dict[str, int]:
    paths = [call["path"] for call in stage.sim.calls()["calls"]]
    return {model: paths.count(f"/v1/models/{model}") for model in (SOL, TERRA, LUNA)}


async def test_one_tick_of_the_cron_is_one_run_among_two_workers(redis: ArqRedis) -> None:
    counted = Counted()
    two = [CronWorker(redis, counted.probe, always, 600) for _ in range(2)]
    tick = datetime.now().astimezone()  # noqa: TID251  arq's cron has no clock of ours
    for one in two:
        assert type(one.worker) is arq.worker.Worker, "nothing of arq is overridden"
        one.worker.cron_jobs[0].next_run = tick  # as after the start; both come to the same tick
        await one.worker.run_cron(tick, 0.5)
    assert await redis.zcard("arq:queue") == 1
    async with running(*two):

        async def done() -> bool:
            return await redis.zcard("arq:queue") == 0

        await until("the run to end", done)
        assert counted.runs == 1
        assert sum(one.worker.jobs_complete for one in two) == 1


async def test_workers_that_start_together_probe_once(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        two = [await stage.worker(), await stage.worker()]

        async def both_had_their_occasion() -> bool:
            return sum(one.components.cron.worker.jobs_complete for one in two) == 2

        await until("both starts", both_had_their_occasion)
        assert probe_counts(stage) == {SOL: 1, TERRA: 1, LUNA: 1}
        models = stage.settings().catalogue().models
        rows = await known_access(redis)
        assert {name: row.status for name, row in rows.items()} == dict.fromkeys(models, "ok")


async def test_the_cron_comes_round_again(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, probe_seconds=1) as stage:
        await stage.worker()

        async def three_times() -> bool:
            return probe_counts(stage)[SOL] >= 3

        await until("three rounds", three_times)


@pytest.mark.parametrize("settings", [{"probe_seconds": 0}, {"OPENAI_API_KEY": None}], ids=str)
async def test_without_a_key_or_a_period_nobody_probes_by_himself(
    redis: ArqRedis, valkey_url: str, settings: dict[str, object]
) -> None:
    async with Stage(redis, valkey_url, **settings) as stage:
        worker = await stage.worker()
        assert worker.components.cron.worker.cron_jobs == []
        assert await request_probe(redis, LIMIT), "but whoever asks is answered"
        statuses = {row.status for row in (await known_access(redis)).values()}
        assert statuses == {"ok"}  # the simulator takes any key


async def test_cron_tasks_take_no_slot_of_a_job(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1, max_jobs=1, probe_seconds=0) as stage:
        worker = await stage.worker()
        job_id = await stage.submit("[[sim: normal tokens=4000 rate=40]] go")
        await stage.reaches(job_id, "output", lambda job: any(a.first_output_at for a in job.attempts))
        assert len(worker.components.claimer.tasks) == 1
        assert await request_probe(redis, LIMIT)
        assert not (await stage.job(job_id)).settled


async def test_a_draining_worker_answers_nobody(redis: ArqRedis) -> None:
    counted = Counted()
    cron_worker = CronWorker(redis, counted.probe, always, 0)
    cron_worker.drain()
    async with running(cron_worker):
        assert not await request_probe(redis, 1.2)
    assert counted.runs == 0


async def test_a_request_that_nobody_took_is_not_done_later(redis: ArqRedis) -> None:
    assert not await request_probe(redis, 0.2)
    counted = Counted()
    cron_worker = CronWorker(redis, counted.probe, always, 0)
    async with running(cron_worker):
        assert await request_probe(redis, LIMIT)
    assert counted.runs == 1


async def test_a_store_that_stays_away_is_reported_once(
    redis: ArqRedis, telemetry_events: list[tuple[str, dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    async def away(_: arq.worker.Worker) -> None:
        nonlocal calls
        calls += 1
        raise ConnectionError

    monkeypatch.setattr(arq.worker.Worker, "main", away)
    monkeypatch.setattr(cron, "_RESTART_S", 0.0)
    async with running(CronWorker(redis, Counted().probe, always, 0)):

        async def often() -> bool:
            return calls > 3

        await until("several tries", often)
        assert [name for name, _ in telemetry_events].count("errands.away") == 1
        monkeypatch.setattr(cron, "_STEADY_S", 0.0)  # as if it had worked for long in between
        calls = 0
        await until("more tries", often)
    assert [name for name, _ in telemetry_events].count("errands.away") > 1


async def test_one_caller_has_the_turn(redis: ArqRedis) -> None:
    book, other = ModelAccessStore(redis, "key:a"), ModelAccessStore(redis, "key:b")
    assert [await book.try_lock(60), await book.try_lock(60), await other.try_lock(60)] == [True, False, True]


def test_a_period_is_a_calendar() -> None:
    assert every(600) == {"minute": {0, 10, 20, 30, 40, 50}, "second": {0}}
    assert every(3600) == {"minute": {0}, "second": {0}}
    assert every(20) == {"second": {0, 20, 40}}


@pytest.mark.parametrize("seconds", [7, 90, 3599, -1, 7200])
def test_a_period_that_no_clock_has_is_refused(seconds: int) -> None:
    with pytest.raises(ValidationError, match="probe_seconds"):
        Settings(_env_file=None, probe_seconds=seconds)


@pytest.mark.parametrize("how", ["no text", "another type"])
async def test_a_queue_that_cannot_be_read_stops_nothing(redis: ArqRedis, how: str) -> None:
    counted = Counted()
    one = CronWorker(redis, counted.probe, always, 0)
    async with running(one):
        if how == "no text":
            await redis.zadd("arq:queue", {b"\xff\xfe{nonsense": 0})
        else:
            await redis.rpush("arq:queue", "x")

        async def anew() -> bool:
            return not await redis.exists("arq:queue")

        await until("the queue to begin anew", anew)
        await redis.enqueue_job(PROBE_FUNCTION)

        async def done() -> bool:
            return counted.runs == 1

        await until("an errand that is asked for afterwards", done)


@pytest.mark.parametrize("queue", ["arq:job:", "arq:retry:", "arq:in-progress:"])
async def test_an_errand_whose_key_is_of_another_type_holds_up_none_of_the_others(redis: ArqRedis, queue: str) -> None:
    """arq reads the key in the task of the errand: that one's fault ends arq's loop, which begins again."""
    counted, requests = Counted(), 0

    async def on_request() -> None:
        nonlocal requests
        requests += 1

    bad = [await redis.enqueue_job(PROBE_FUNCTION, _job_id=f"bad{n}") for n in range(6)]  # more than there are slots
    for job in bad:
        assert job is not None
        await redis.delete(f"{queue}{job.job_id}")
        await redis.rpush(f"{queue}{job.job_id}", "of another type")
    async with running(CronWorker(redis, counted.probe, always, 0, on_request)):
        before = requests
        assert await redis.enqueue_job(PROBE_FUNCTION, _job_id="good") is not None

        async def done() -> bool:
            return requests > before and await redis.zscore("arq:queue", "good") is None

        await until("the good errand to be done beside the bad ones", done, LIMIT)
