"""Runs Vigil in the test's own loop: real Valkey, simulator over a socket, real workers. No mocks.

`async with Stage(redis, url) as stage:` then `stage.submit(...)`, `await stage.settled(job_id)`. Nothing sleeps: every
wait is for a described condition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from arq.connections import ArqRedis
from waiting import LIMIT, until

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.record import Job
from worker.jobs.spec import OnDelay, Policy
from worker.main import WorkerProcess
from worker.settings import Settings
from worker.simulator import Simulator
from worker.simulator.pace import Pace
from worker.store import keys
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob

__all__ = ["LIMIT", "LUNA", "SOL", "TERRA", "Stage", "until"]

SOL, TERRA, LUNA = "gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"


class ScaledClock(Clock):
    """The machine's clock; pauses within an attempt are divided like the simulator's waits."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / max(1.0, self._pace.speed))


class Stage:
    """Simulator, store and any number of workers."""

    def __init__(self, redis: ArqRedis, url: str, *, speed: float = 20.0, **settings: Any) -> None:
        self.redis, self.url = redis, url
        self.sim = Simulator(speed=speed)
        self.jobs = Jobs(redis, Clock())
        self._settings = settings
        self._workers: list[tuple[WorkerProcess, asyncio.Event, asyncio.Task[None]]] = []

    async def __aenter__(self) -> Self:
        await self.sim.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.hurry()  # so that draining is short
        for worker, _, _ in list(self._workers):
            await self.stop(worker)
        await self.sim.stop()

    def settings(self, **more: Any) -> Settings:
        given = {
            "redis_url": self.url,
            "OPENAI_API_KEY": "sk-stage",
            "OPENAI_BASE_URL": self.sim.url,
            "lease_seconds": 60.0,  # a busy machine may stop for long
            "drain_seconds": 5.0,
            "audit_key": "A" * 43,  # (no test writes one into the folder that it is started in)
            **self._settings,
            **more,
        }
        secrets = given.pop("account_secrets", {})
        return Settings(_env_file=None, **given).with_account_secrets(secrets)  # type: ignore[call-arg]

    async def worker(self, **settings: Any) -> WorkerProcess:
        """Start one more worker, and return once it listens."""
        worker = WorkerProcess(self.settings(**settings), self.redis, ScaledClock(self.sim.world.pace))
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(worker.serve(stop, ready))
        await ready.wait()
        self._workers.append((worker, stop, task))
        return worker

    async def stop(self, worker: WorkerProcess) -> None:
        """Drain the worker and wait until it has ended."""
        row = next(r for r in self._workers if r[0] is worker)
        self._workers.remove(row)
        row[1].set()
        await row[2]

    async def crash(self, worker: WorkerProcess) -> None:
        """End the worker as kill -9 would: nothing is committed, released or cancelled upstream."""
        row = next(r for r in self._workers if r[0] is worker)
        self._workers.remove(row)
        worker.components.context.jobs.change = _never_returns  # type: ignore[method-assign]
        worker.components.context.chunks.append = _never_returns  # type: ignore[method-assign]
        runs = [*worker.components.claimer.running.values(), *worker.components.claimer.tasks.values()]
        row[2].cancel()
        for task in runs:
            task.cancel()
        await asyncio.gather(row[2], *runs, return_exceptions=True)

    async def lapse(self, job_id: str) -> None:
        """Let the job's lease run out, as if its holder had not renewed it in time."""
        await self.redis.zadd(keys.LEASED, {job_id: 0}, xx=True)

    def hurry(self) -> None:
        """Make the provider send whatever it still waits for at once."""
        self.sim.set_speed(1e6)

    async def submit(self, prompt: str, *, model: str = SOL, policy: dict[str, Any] | None = None, **fact: Any) -> str:
        """Submit a job and return its id."""
        spec = dict(policy or {})
        if isinstance(spec.get("on_delay"), dict):
            spec["on_delay"] = OnDelay(**spec["on_delay"])
        new = ev.Queued(app="stage", key_id="key_stage", requested_model=model, policy=Policy(**spec), **fact)
        stored, _ = await self.jobs.submit(NewJob(new, {"metadata": {}}, {"input": prompt}))
        return stored.job.id

    async def job(self, job_id: str) -> Job:
        stored = await self.jobs.load(job_id)
        assert stored is not None
        return stored.job

    async def settled(self, job_id: str, seconds: float = LIMIT) -> Job:
        """Return the job once it is terminal."""

        async def look() -> Job | None:
            job = await self.job(job_id)
            return job if job.settled else None

        job: Job = await until(f"{job_id} to settle", look, seconds)
        return job

    async def reaches(self, job_id: str, what: str, condition: Callable[[Job], Any], seconds: float = LIMIT) -> Job:
        """Return the job once the condition holds."""

        async def look() -> Job | None:
            job = await self.job(job_id)
            return job if condition(job) else None

        job: Job = await until(what, look, seconds)
        return job

    async def output(self, job_id: str) -> object:
        """Return the first of the job's text, items, refusal and draft that there is; None if there is none."""
        answer = await self.jobs.load_output(job_id) or {}
        return next((answer[k] for k in ("output_text", "output", "refusal", "draft") if answer.get(k)), None)

    async def types(self, job_id: str) -> list[str]:
        """Return the types of the job's events, in order."""
        return [event["type"] for event in await self.jobs.trail(job_id)]


async def _never_returns(*_: object, **__: object) -> Any:
    await asyncio.get_running_loop().create_future()
