"""The arq worker that claims jobs by lease and runs them: arq is the doorbell, not the filing cabinet.

Choice: the lease lives in the queue. Our claim script takes what is ready, due, or left by a dead worker, and gives
arq a fresh id for each wake-up, so nothing arq remembers can stand in the way. Overridden of arq 0.28: `main` and
`_poll_iteration` (tests/tasks/test_arq_contract.py keeps the signatures). Stock: run_job, finish_job, hooks, shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

import arq.worker
from arq.connections import ArqRedis

from worker.jobs.errors import StoreUnavailable
from worker.store.jobs.repository import Jobs
from worker.store.jobs.scripts import ARQ_FUNCTION
from worker.store.jobs.stored_job import ClaimedJob
from worker.tasks.rounds import loop_pass
from worker.telemetry.events import emit

_NO_TIMEOUT: Final = 10**7  # seconds; the run deadline is the job's own
_IDLE_POLL: Final = 1.0
_AFTER_YOU: Final = 0.05  # seconds: arq's durable writes would stand before the run's own in Redis
_AWAY_POLL: Final = 0.5

RunJob = Callable[[ClaimedJob], Coroutine[Any, Any, None]]


class Claimer(arq.worker.Worker):
    """Claims up to `max_jobs` jobs at once and runs each with `run`."""

    def __init__(
        self,
        redis: ArqRedis,
        jobs: Jobs,
        run: RunJob,
        *,
        worker_id: str,
        max_jobs: int,
        lease: float,
        circuit: str,
        app_limit: int = 0,
    ) -> None:
        async def run_job(ctx: dict[str, Any], _: str) -> None:
            task = self.running.get(ctx["job_id"])
            if task is not None:
                await asyncio.wait([task])

        super().__init__(
            functions=[arq.worker.func(run_job, name=ARQ_FUNCTION, timeout=_NO_TIMEOUT, keep_result=0)],
            redis_pool=redis,
            handle_signals=False,
            max_jobs=max_jobs,
            job_timeout=_NO_TIMEOUT,
            keep_result=0,
            log_results=False,
            job_serializer=redis.job_serializer,
            job_deserializer=json.loads,
        )
        self._jobs, self._worker_id, self._lease, self._circuit = jobs, worker_id, lease, circuit
        self._app_limit = app_limit
        self._run = run
        self.running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._next_due = 0.0

    def wake(self) -> None:
        """Something may be ready: look now."""
        self._wake.set()

    async def main(self) -> None:
        """Claims until cancelled: at once when woken, at the next due time, and now and then in any case."""
        self.ctx["redis"] = self.pool
        while True:
            self._wake.clear()
            try:
                with loop_pass("claiming") as one:
                    await self._poll_iteration()
                if one.broken:
                    self._next_due = _AWAY_POLL
            except StoreUnavailable:
                self._next_due = _AWAY_POLL
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_due):
                    await self._wake.wait()

    async def _poll_iteration(self) -> None:
        """Claims as many jobs as there is room for and starts them."""
        room = self.max_jobs - len(self.running)
        self._next_due = _IDLE_POLL
        if not self.allow_pick_jobs or room <= 0:
            return
        due, held = await self._jobs.claim(self._worker_id, room, self._lease, self._circuit, self._app_limit)
        for job in held:
            self._start(job)
        if len(held) == room:
            return  # a finished job wakes us
        if due >= 0:
            self._next_due = min(_IDLE_POLL, max(0.001, due))

    def _start(self, held: ClaimedJob) -> None:
        """Starts the run at once; arq's own bookkeeping follows beside it and waits for its end."""
        arq_id = f"{held.job.id}.{held.generation}"
        run = self.running[arq_id] = asyncio.create_task(self._run(held), name=f"run {arq_id}")
        run.add_done_callback(lambda _: self._ended(arq_id))
        task = self.tasks[arq_id] = asyncio.create_task(self._keep_arqs_books(arq_id), name=f"arq {arq_id}")
        task.add_done_callback(lambda done: self._arq_ended(arq_id, done))

    async def _keep_arqs_books(self, arq_id: str) -> None:
        await asyncio.sleep(_AFTER_YOU)
        await self.run_job(arq_id, 0)

    def _ended(self, arq_id: str) -> None:
        self.running.pop(arq_id, None)
        self._wake.set()

    def _arq_ended(self, arq_id: str, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(arq_id, None)
        if not task.cancelled() and task.exception() is not None:
            # arq's bookkeeping met a Redis that is away; the run does not depend on it
            emit("arq.hiccup", job_id=arq_id.partition(".")[0], error=type(task.exception()).__name__)
