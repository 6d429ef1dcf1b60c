"""An index of jobs of another type: lists go on, and a worker rebuilds it, whichever index it is."""

from __future__ import annotations

import pytest
from arq.connections import ArqRedis
from builders import new_job

from worker.clock import Clock
from worker.store import keys
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import list_jobs
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle import index_repair
from worker.store.lifecycle.queue_repair import QueueRepair

JOBS = 7
KINDS = ("", "status", "model", "user")


@pytest.mark.parametrize("by", ["a list", "a submit"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_spoiled_index_is_whole_again(
    kind: str, by: str, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_repair, "_PAGE", 3)
    jobs, repairing = Jobs(redis, Clock()), QueueRepair(redis, Clock())
    made = [(await jobs.submit(new_job(prompt=f"{n}", safety_identifier="who")))[0].job for n in range(JOBS)]
    app, model = made[0].app, made[0].requested_model
    filters = {
        "": ListFilters(),
        "status": ListFilters(statuses=("queued",)),
        "model": ListFilters(model=model),
        "user": ListFilters(safety_identifier="who"),
    }[kind]
    index = keys.index(app, kind, {"": "", "status": "queued", "model": model, "user": "who"}[kind])
    assert await redis.zcard(index) == JOBS
    await redis.delete(index)
    await redis.set(index, "x")
    if by == "a submit":
        made.append((await jobs.submit(new_job(prompt="more", safety_identifier="who")))[0].job)
    else:
        found, _ = await list_jobs(redis, app, filters, 20, None)
        assert {one.job.id for one in found} == {job.id for job in made}
    await repairing.repair(jobs.current)
    assert {row.decode() for row in await redis.zrange(index, 0, -1)} == {job.id for job in made}
    found, _ = await list_jobs(redis, app, filters, 20, None)
    assert {one.job.id for one in found} == {job.id for job in made}
    assert await redis.get(keys.aside(index)) == b"x"


async def test_a_job_that_moves_while_its_index_is_rebuilt_is_not_put_back(redis: ArqRedis) -> None:
    jobs, repairing = Jobs(redis, Clock()), index_repair.IndexRepair(redis, Clock())
    job = (await jobs.submit(new_job()))[0].job
    index = keys.index(job.app, "status", "queued")
    await redis.delete(index)
    await redis.hset(keys.job(job.id), "v", job.version + 1)  # another process commits after it was read
    repairing.add(index)
    await repairing.proceed()
    assert not await redis.exists(index)
