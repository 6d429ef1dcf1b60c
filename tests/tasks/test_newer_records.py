"""Jobs that a process of a newer release wrote, in a worker of this one, as while a deployment is updated."""

from __future__ import annotations

import json
from typing import Any

from arq.connections import ArqRedis
from full_stack import full_stack
from in_process import until
from spoiling import retag

from worker.jobs.states import Outcome, Status
from worker.store import keys

QUICK = "[[sim: normal tokens=3]] hello"
NEW = {"a": [1, {"b": None}]}


async def _record(redis: ArqRedis, job_id: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(await redis.hget(keys.job(job_id), "rec"))
    return body


async def _as_newer(redis: ArqRedis, job_id: str, **fields: Any) -> None:
    """Write the record as a newer release would."""
    body = await _record(redis, job_id)
    for attempt in body["attempts"]:
        attempt["of_a_newer_release"] = NEW
    await redis.hset(keys.job(job_id), "rec", json.dumps({**body, **fields}))
    await retag(redis, job_id)


async def test_fields_of_a_newer_release_are_kept_and_the_job_runs(valkey_url: str, redis: ArqRedis) -> None:
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        job_id = await running.submit(QUICK)
        await _as_newer(redis, job_id, of_a_newer_release=NEW)
        await running.stage.worker()
        assert (await running.stage.settled(job_id)).status is Status.COMPLETED
        assert (await _record(redis, job_id))["of_a_newer_release"] == NEW
        assert (await running.view(job_id))["status"] == "completed"


async def test_fields_of_a_running_job_are_kept_in_its_attempt(valkey_url: str, redis: ArqRedis) -> None:
    async with full_stack(redis, valkey_url) as running:
        first = await running.stage.worker()
        job_id = await running.submit("[[sim: check_then_clear hold=600 latency=0 queue=0 tokens=3]] hello")
        await running.stage.reaches(job_id, "a check", lambda job: job.open_checks)
        await running.stage.crash(first)
        await _as_newer(redis, job_id, of_a_newer_release=NEW)
        await running.stage.lapse(job_id)
        await running.stage.worker()
        running.stage.hurry()
        job = await running.stage.settled(job_id)
        assert (job.status, len(job.attempts)) == (Status.COMPLETED, 1)
        record = await _record(redis, job_id)
        assert record["of_a_newer_release"] == record["attempts"][0]["of_a_newer_release"] == NEW


async def test_a_job_that_needs_a_newer_release_waits_for_it(valkey_url: str, redis: ArqRedis) -> None:
    """It is neither run nor failed, and stops no other; once a worker can act on it, it runs."""
    async with full_stack(redis, valkey_url, speed=200.0) as running:
        job_id = await running.submit(QUICK)
        await _as_newer(redis, job_id, schema_number=99)
        await running.stage.worker()

        async def given_back() -> bool:
            return await redis.zscore(keys.LATER, job_id) is not None

        await until("the job to be given back", given_back)
        other = await running.submit(QUICK)
        assert (await running.stage.settled(other)).status is Status.COMPLETED
        assert (await running.view(job_id))["status"] == "queued"
        assert not await redis.sismember(keys.slots("acme"), job_id)
        await _as_newer(redis, job_id, schema_number=1)
        assert (await running.stage.settled(job_id)).status is Status.COMPLETED


async def test_a_worker_lets_go_of_a_job_that_came_to_need_a_newer_release(valkey_url: str, redis: ArqRedis) -> None:
    """Its call is not lost: a worker that can act on the record reads the same response on."""
    async with full_stack(redis, valkey_url) as running:
        await running.stage.worker()
        job_id = await running.submit("[[sim: check_then_clear hold=600 latency=0 queue=0 tokens=3]] hello")
        await running.stage.reaches(job_id, "a check", lambda job: job.open_checks)
        await _as_newer(redis, job_id, schema_number=99)
        running.stage.hurry()

        async def released() -> bool:
            return job_id not in await _running(running.stage)

        await until("the worker to let go", released)
        assert (await _record(redis, job_id))["schema_number"] == 99
        await _as_newer(redis, job_id, schema_number=1)
        await running.stage.lapse(job_id)
        job = await running.stage.settled(job_id)
        assert job.status is Status.COMPLETED
        assert [attempt.outcome for attempt in job.attempts] == [Outcome.COMPLETED]


async def _running(stage: Any) -> set[str]:
    return {job_id for worker, _, _ in stage._workers for job_id in worker.components.claimer.running}
