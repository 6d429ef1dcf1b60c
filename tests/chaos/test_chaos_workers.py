"""Workers die, freeze and leave: no accepted job is lost, nothing is sent or billed twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from in_process import until
from processes import Processes
from promise_checks import check_books, submit
from waiting import stopwatch

from worker.clock import Clock
from worker.jobs.states import Outcome, Status
from worker.store import keys
from worker.store.jobs.repository import Jobs

STREAM = "[[sim: normal tokens=160 rate=1]] go"  # it goes on until the provider hurries


async def running(stage: Processes, ids: list[str]) -> int:
    jobs = Jobs(stage.redis, Clock())
    rows = await asyncio.gather(*(jobs.load(job_id) for job_id in ids))
    return sum(1 for row in rows if row and any(a.first_output_at for a in row.job.attempts))


async def all_settled(stage: Processes, ids: list[str]) -> bool:
    jobs = Jobs(stage.redis, Clock())
    return all([(row := await jobs.load(job_id)) is not None and row.job.settled for job_id in ids])


async def test_two_workers_killed_one_after_the_other(tmp_path: Path) -> None:
    async with Processes(tmp_path) as stage:
        first, second = await asyncio.gather(stage.worker(), stage.worker())
        ids = [await submit(stage.redis, STREAM) for _ in range(40)]
        await until("40 streams", lambda: _equals(running(stage, ids), 40))
        await stage.kill(first)

        async def nothing_overdue() -> bool:
            names = [n.decode() for n in await stage.redis.zrange(keys.LEASED, 0, -1)]
            tokens = [await stage.redis.hget(keys.job(n), "tok") for n in names]
            return not any(t and f"-{first.pid}-".encode() in t for t in tokens)

        async with stopwatch(stage.redis) as watch:
            third = asyncio.create_task(stage.worker())
            await until("the survivors to hold every job", nothing_overdue)
            assert watch.seconds <= stage.lease + 5
        await third
        await stage.kill(second)
        stage.hurry()
        await until("all 40 to settle", lambda: all_settled(stage, ids))
        found = await check_books(stage.redis, ids)
        calls = stage.sim.calls()
        assert [job.status for job in found] == [Status.COMPLETED] * 40
        assert calls["creates"] == 40 == sum(len(job.attempts) for job in found)
        assert calls["tokens_billed"]["output"] == 40 * 160


async def _equals(count: object, wanted: int) -> bool:
    return bool(await count == wanted)  # type: ignore[misc]


async def test_a_worker_frozen_past_its_lease_writes_nothing_when_it_thaws(tmp_path: Path) -> None:
    async with Processes(tmp_path) as stage:
        first = await stage.worker()
        ids = [await submit(stage.redis, STREAM) for _ in range(5)]
        await until("5 streams", lambda: _equals(running(stage, ids), 5))
        first.send_signal(signal.SIGSTOP)
        await stage.worker()
        stage.hurry()
        await until("all to settle", lambda: all_settled(stage, ids))
        before = await check_books(stage.redis, ids)
        first.send_signal(signal.SIGCONT)

        async def lease_lost() -> bool:
            return stage.logs().count("lease.lost") >= 5

        await until("the late writer to be told", lease_lost)
        after = await check_books(stage.redis, ids)
        assert after == before, "terminal is terminal"
        assert stage.sim.calls()["creates"] == 5
        jobs = Jobs(stage.redis, Clock())
        answers = [await jobs.load_output(job_id) for job_id in ids]
        assert all(a and a["output_text"] for a in answers)


async def test_a_worker_told_to_leave_hands_over_and_exits_0(tmp_path: Path) -> None:
    async with Processes(tmp_path, lease=30) as stage:
        first = await stage.worker()
        ids = [await submit(stage.redis, STREAM) for _ in range(10)]
        await until("10 streams", lambda: _equals(running(stage, ids), 10))
        second = asyncio.create_task(stage.worker())
        assert await stage.term(first) == 0
        await second
        stage.hurry()
        await until("all to settle", lambda: all_settled(stage, ids))
        found = await check_books(stage.redis, ids)
        assert all(job.status is Status.COMPLETED and len(job.attempts) == 1 for job in found)
        assert stage.sim.calls()["creates"] == 10


async def test_a_second_signal_exits_now_and_still_loses_nothing(tmp_path: Path) -> None:
    async with Processes(tmp_path, VIGIL_UPSTREAM="stream", VIGIL_DRAIN_SECONDS="600") as stage:
        first = await stage.worker()
        ids = [await submit(stage.redis, STREAM) for _ in range(5)]
        await until("5 streams", lambda: _equals(running(stage, ids), 5))
        first.send_signal(signal.SIGTERM)
        await until("it to drain", lambda: _true("worker.draining" in stage.logs()))
        async with stopwatch(stage.redis) as watch:
            await stage.term(first)
            assert watch.seconds < 3
        stage.hurry()
        await stage.worker()
        await until("all to settle", lambda: all_settled(stage, ids))
        for job in await check_books(stage.redis, ids):
            assert job.status is Status.COMPLETED
            assert {a.outcome for a in job.attempts} <= {Outcome.LOST, Outcome.INTERRUPTED, Outcome.COMPLETED}


async def _true(value: bool) -> bool:
    return value
