"""A worker that fails with an internal error hands over what runs upstream before it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from arq.connections import ArqRedis
from in_process import Stage

from worker.jobs.states import Status
from worker.main import WorkerProcess

LONG = "[[sim: normal tokens=200 rate=40]] tell me"  # 5 s at speed 1


def once_broken(kept: Any) -> Any:
    """Raises the first time it is called, and works from then on."""
    calls = 0

    async def work(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ZeroDivisionError
        return await kept(*given)

    return work


def break_part(worker: WorkerProcess, part: str) -> None:
    place, name = {
        "flusher": (worker.components.context.flusher, "_write"),
        "leases": (worker.components.context.leases, "renew"),
        "sweeper": (worker.components.sweeper, "sweep"),
        "claiming": (worker.components.claimer, "_poll_iteration"),
    }[part]
    setattr(place, name, once_broken(getattr(place, name)))
    worker.components.claimer.wake()
    worker.components.context.leases._renew_now.set()


@pytest.mark.parametrize("part", ["flusher", "leases", "sweeper", "claiming", "cancelled"])
async def test_a_worker_with_a_broken_part_hands_its_jobs_over(redis: ArqRedis, valkey_url: str, part: str) -> None:
    async with Stage(redis, valkey_url, speed=1, lease_seconds=60) as stage:
        first = await stage.worker()
        job_id = await stage.submit(LONG)
        await stage.reaches(job_id, "output", lambda job: any(a.first_output_at for a in job.attempts))
        row = next(r for r in stage._workers if r[0] is first)
        stage._workers.remove(row)
        if part == "cancelled":
            row[2].cancel()
        else:
            break_part(first, part)
        async with asyncio.timeout(20):
            (ended,) = await asyncio.gather(row[2], return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError if part == "cancelled" else ZeroDivisionError)
        assert (await stage.job(job_id)).status is Status.QUEUED, "another worker may take it now"
        await stage.worker()
        job = await stage.settled(job_id)
        calls = stage.sim.calls()
        assert (job.status, len(job.attempts), calls["creates"], calls["cancels"]) == (Status.COMPLETED, 1, 1, 0)
        assert "job.interrupted" in await stage.types(job_id)
