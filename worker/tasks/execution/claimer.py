"""The arq worker that claims jobs by lease and runs them. arq only starts jobs; their state is not in arq.

Choice: the lease lives in the queue. Our claim script takes what is ready, due, or left by a dead worker, and gives
arq a fresh id for each wake-up, so nothing that arq remembers of an earlier one can prevent it. Overridden of arq 0.28:
`main` and `_poll_iteration` (tests/tasks/test_arq_contract.py keeps the signatures). Stock: run_job, finish_job, hooks,
shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import arq.worker
from arq.connections import ArqRedis

from worker.jobs.errors import StoreUnavailable
from worker.store.admission.pacing import PaceRules
from worker.store.jobs.repository import Jobs
from worker.store.jobs.scripts import ARQ_FUNCTION
from worker.store.jobs.stored_job import AppLimits, ClaimedJob
from worker.tasks.execution.slots import Slots
from worker.tasks.loop import loop_pass
from worker.telemetry.events import emit

_NO_TIMEOUT_S: Final = 10**7  # seconds; the run deadline is the job's own
_IDLE_POLL_S: Final = 1.0
_ARQ_DELAY_S: Final = 0.05  # without it, arq's durable writes would be in front of the run's own in Redis
_AWAY_POLL_S: Final = 0.5

RunJob = Callable[[ClaimedJob], Coroutine[Any, Any, None]]


class Claimer(arq.worker.Worker):
    """Claims as many jobs as it may have slots, and runs each with `run`."""

    def __init__(
        self,
        redis: ArqRedis,
        jobs: Jobs,
        run: RunJob,
        *,
        worker_id: str,
        slots: Slots,
        lease: float,
        circuits: Sequence[str],
        pace: PaceRules,
        app_limit: int = 0,
        app_share: float = 1.0,
    ) -> None:
        async def run_job(ctx: dict[str, Any], _: str) -> None:
            task = self.running.get(ctx["job_id"])
            if task is not None:
                await asyncio.wait([task])

        super().__init__(
            functions=[arq.worker.func(run_job, name=ARQ_FUNCTION, timeout=_NO_TIMEOUT_S, keep_result=0)],
            redis_pool=redis,
            handle_signals=False,
            max_jobs=slots.total,
            job_timeout=_NO_TIMEOUT_S,
            keep_result=0,
            log_results=False,
            job_serializer=redis.job_serializer,
            job_deserializer=json.loads,
        )
        self._jobs, self._worker_id, self._lease, self._circuits = jobs, worker_id, lease, circuits
        self._app_limit, self._app_share, self._pace = app_limit, app_share, pace
        self._held = Counter[str]()  # slots of this worker, by app
        self._run = run
        self.running: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._slots = slots.join(self.wake)
        self._next_due = 0.0

    def wake(self) -> None:
        """Claim now: something may be ready."""
        self._wake.set()

    async def main(self) -> None:
        """Claim until cancelled: at once when woken, at the next due time, and once a second in any case."""
        self.ctx["redis"] = self.pool
        while True:
            self._wake.clear()
            try:
                with loop_pass("claiming") as one:
                    await self._poll_iteration()
                if one.broken:
                    self._next_due = _AWAY_POLL_S
            except StoreUnavailable:
                self._next_due = _AWAY_POLL_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_due):
                    await self._wake.wait()

    async def _poll_iteration(self) -> None:
        """Claim as many jobs as there are free slots, and start them."""
        self._next_due = _IDLE_POLL_S
        free = self._slots.free() if self.allow_pick_jobs else 0
        if free <= 0:
            return
        limits = AppLimits(self._app_limit, self._app_share, self._held, self._pace.text)
        self._slots.begin_claim(free)
        got: int | None = None
        try:
            due, claimed = await self._jobs.claim(self._worker_id, free, self._lease, self._circuits, limits)
            got = len(claimed)
            for job in claimed:
                self._start(job)
        finally:
            self._slots.end_claim(free, got)
        if len(claimed) == free:
            return  # the end of a job wakes this loop
        if due >= 0:
            self._next_due = min(_IDLE_POLL_S, max(0.001, due))

    def _start(self, claimed: ClaimedJob) -> None:
        """Start the run at once, and arq's own bookkeeping beside it, which waits for the end of the run."""
        arq_id = f"{claimed.job.id}.{claimed.generation}"
        run = self.running[arq_id] = asyncio.create_task(self._run(claimed), name=f"run {arq_id}")
        self._held[claimed.job.app] += 1
        self._slots.start()
        run.add_done_callback(lambda _: self._run_ended(arq_id, claimed.job.app))
        task = self.tasks[arq_id] = asyncio.create_task(self._run_arq_job(arq_id), name=f"arq {arq_id}")
        task.add_done_callback(lambda done: self._arq_ended(arq_id, done))

    async def _run_arq_job(self, arq_id: str) -> None:
        await asyncio.sleep(_ARQ_DELAY_S)
        await self.run_job(arq_id, 0)

    def _run_ended(self, arq_id: str, app: str) -> None:
        self.running.pop(arq_id, None)
        self._held[app] -= 1
        if not self._held[app]:
            del self._held[app]
        self._slots.end()
        self._wake.set()

    def _arq_ended(self, arq_id: str, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(arq_id, None)
        if not task.cancelled() and task.exception() is not None:
            # Redis was unavailable for arq's bookkeeping; the run does not depend on it
            emit("arq.hiccup", job_id=arq_id.partition(".")[0], error=type(task.exception()).__name__)
