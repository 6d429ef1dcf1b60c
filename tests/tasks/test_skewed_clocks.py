"""Deadlines and due times follow the clock of Redis, whatever the machines' own clocks show."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import httpx2
import pytest
from arq.connections import ArqRedis
from in_process import SOL, Stage, until

from api.server import bind, serve
from worker.clock import Clock
from worker.jobs.states import Status
from worker.main import WorkerProcess
from worker.store.apps import SCOPES, Apps


class Skewed(Clock):
    """A machine whose wall clock is wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._wrong = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._wrong


@pytest.mark.parametrize(("api_wrong", "worker_wrong"), [(-300, 0), (300, 0), (0, -300), (-300, 300)])
async def test_deadlines_and_not_before_count_by_the_store(
    redis: ArqRedis, valkey_url: str, api_wrong: float, worker_wrong: float
) -> None:
    async with Stage(redis, valkey_url) as stage:
        settings, sock = stage.settings(), bind("127.0.0.1", 0)
        base = "http://{}:{}".format(*sock.getsockname())
        ready, stop = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(
            serve(settings, redis, ready=ready, stop=stop, sock=sock, clock=Skewed(api_wrong))
        )
        await ready.wait()
        key = (await Apps(redis, Clock()).create_key("acme", SCOPES))[1]
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=20, trust_env=False) as app:

            async def submit(policy: dict[str, object] | None = None, **more: object) -> str:
                body = {"model": SOL, "input": "[[sim: normal tokens=3]] hi", "policy": policy or {}, **more}
                answer = await app.post("/v1/jobs", json=body)
                assert answer.status_code == 202, answer.text
                return str(answer.json()["id"])

            soon = (Clock().now() + timedelta(seconds=2)).isoformat()
            queued = await submit({"queue_deadline_seconds": 20, "run_deadline_seconds": 20})
            later = await submit(not_before=soon)
            assert (await stage.job(later)).status is Status.SCHEDULED
            off = (Clock().now() - (await stage.job(queued)).created_at).total_seconds()
            assert abs(off) < 30
            worker = WorkerProcess(settings, redis, Skewed(worker_wrong))
            stopping = asyncio.Event()
            working = asyncio.create_task(worker.serve(stopping))
            assert (await stage.settled(queued)).status is Status.COMPLETED
            assert (await stage.settled(later)).status is Status.COMPLETED
            failing = await submit(input="[[sim: server_error times=1]] again")
            assert (await stage.settled(failing)).status is Status.COMPLETED, "a backoff is as long as it is meant"
            slow = await submit({"run_deadline_seconds": 2}, input="[[sim: queued_forever]] never")
            expired = await stage.settled(slow)
            assert (expired.status, expired.reason) == (Status.EXPIRED, "run_deadline")
            stopping.set()
            await working
            waits = await submit({"queue_deadline_seconds": 1})
            other = WorkerProcess(stage.settings(max_jobs=1), redis, Skewed(worker_wrong))
            other.components.claimer.allow_pick_jobs = False  # it sweeps, and claims nothing
            ending = asyncio.Event()
            sweeping = asyncio.create_task(other.serve(ending))

            async def over() -> bool:
                return (await stage.job(waits)).settled

            await until("the queue deadline", over)
            assert (await stage.job(waits)).reason == "queue_deadline"
            ending.set()
            await sweeping
        stop.set()
        await serving
