"""Sweeps what no run would notice: waiting jobs past their deadline, ended pauses; and sends this worker's heartbeat.

Several sweepers at once are harmless: each change is a guarded commit. The work grows with what is due, not with what
is stored. Leases and due times are not swept: the claim takes care of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.deadline import deadline_of
from worker.jobs.errors import AlreadySettled, IllegalEvent, Refused, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY, Outcome
from worker.jobs.view_schema import WaitReason
from worker.safety.end_causes import expiry_error
from worker.store.admission.circuit_breaker import release_orphans
from worker.store.admission.pauses import Pauses
from worker.store.connection import locks
from worker.store.end_users.appeals import Appeals
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.compaction import Compaction
from worker.store.lifecycle.erasure import Eraser
from worker.store.lifecycle.queue_repair import QueueRepair
from worker.store.stats import queue_depth
from worker.store.stats.worker_registry import record_heartbeat, remove_heartbeat, workers
from worker.tasks.account_connections import AccountConnections
from worker.tasks.loop import loop_pass
from worker.tasks.maintenance.key_expiry import report_expiring_keys
from worker.tasks.maintenance.quarantine_cleanup import cancel_quarantined_jobs
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import report_internal_error

WorkerState = Callable[[], dict[str, object]]
INTERVAL = 0.5
_HEARTBEAT_EVERY = 4  # sweeps
_CHECK_QUEUE_EVERY = 20  # sweeps


class Sweeper:
    """Sweeps until cancelled."""

    def __init__(
        self,
        redis: ArqRedis,
        jobs: Jobs,
        clock: Clock,
        accounts: AccountConnections,
        worker_id: str,
        state: WorkerState,
        stuck_seconds: float = 600.0,
    ) -> None:
        self._redis, self._jobs, self._clock, self._accounts = redis, jobs, clock, accounts
        self._worker_id, self._state, self._stuck_seconds = worker_id, state, stuck_seconds
        self._lag = 0.0
        self._eraser = Eraser(redis, jobs, clock)
        self._compaction = Compaction(redis, clock)
        self._repair = QueueRepair(redis, clock)
        self._pauses, self._quarantine = Pauses(redis, clock), Quarantine(redis, clock)
        self._appeals = Appeals(redis, clock)
        self._ends_indexed = False  # those of rows that an earlier release wrote

    async def run(self) -> None:
        """Sweep twice a second, send a heartbeat every two seconds, check the queue's age every ten."""
        sweeps = 0
        while True:
            try:
                await self.sweep()
                if sweeps % _HEARTBEAT_EVERY == 0:
                    with loop_pass("heartbeat"):
                        await self.beat()
                if sweeps % _CHECK_QUEUE_EVERY == 0:
                    with loop_pass("look at the queue"):
                        await self.report_stuck_queue()
                    with loop_pass("circuits of no account"):
                        await self.release_orphans()
                    with loop_pass("repair of the queue"):
                        await self._repair.repair(self._jobs.current)
                    with loop_pass("sweep of old appeals"):
                        await self._appeals.sweep()
                    with loop_pass("look at the ends of keys"):
                        await report_expiring_keys(self._redis, self._clock)
                emit("sweep.done", worker=self._worker_id)
            except StoreUnavailable:
                pass  # the process's `StoreWatch` reports it
            sweeps += 1
            began = self._clock.monotonic()
            await asyncio.sleep(INTERVAL)
            self._lag = self._clock.monotonic() - began - INTERVAL

    async def report_stuck_queue(self) -> None:
        """Report, from one of the workers, that a job has been ready for too long: no worker takes it."""
        depths = await queue_depth.depths(self._redis, self._clock)
        age = depths.oldest_queued_seconds or 0.0
        if age > self._stuck_seconds and await locks.should_warn(self._redis, "queue.stuck", self._stuck_seconds):
            emit("queue.stuck", seconds=round(age, 1), count=depths.queued)

    async def release_orphans(self) -> None:
        """Let jobs go that a circuit holds of an account, or of a key, that no worker has any more."""
        alive = await workers(self._redis, self._clock)
        if not all("circuits" in worker for worker in alive):
            return  # one of an earlier release does not say what it has
        served = {*self._accounts.scopes, *(scope for worker in alive for scope in worker.get("circuits", []))}
        for scope, count in (await release_orphans(self._redis, served)).items():
            emit("circuit.closed", scope=scope, count=count)

    async def sweep(self) -> None:
        """Expire waiting jobs past their deadline, end quarantines whose time is over and cancel the waiting jobs of
        the others, erase what must not be kept, compress what is settled, let a trial through each open circuit,
        release what ended pauses hold.
        """
        await self._accounts.start_trials()
        with loop_pass("sweep of pauses"):
            await self._pauses.sweep()
        with loop_pass("sweep of what is not stored"):
            await self._eraser.sweep()
        with loop_pass("compression of settled jobs"):
            await self._compaction.sweep()
        with loop_pass("sweep of the quarantine"):
            await self._sweep_quarantine()
        with loop_pass("sweep of deadlines"):
            for job_id in await self._jobs.overdue():
                await self._expire_job(job_id)

    async def _sweep_quarantine(self) -> None:
        if not self._ends_indexed:
            await self._quarantine.index_ends()
            self._ends_indexed = True
        await self._quarantine.end_due()
        await self._quarantine.note_new()
        await cancel_quarantined_jobs(self._jobs, self._quarantine)

    async def _expire_job(self, job_id: str) -> None:
        """Expire the job, or forget its deadline if it has settled by another way."""
        with loop_pass("end of a deadline"):
            try:
                limit = await self._jobs.limit_of(job_id)
                await self._jobs.change(job_id, lambda job: self._expiry(job, limit))
            except (AlreadySettled, Refused):
                await self._jobs.remove_deadline(job_id)
            except IllegalEvent as error:
                report_internal_error("sweep.stuck", error, job_id=job_id)

    def _expiry(self, job: Job, limit: WaitReason | None) -> list[EventDraft]:
        deadline = deadline_of(job)
        if job.status in UNDER_WAY or deadline is None or deadline.at > self._clock.now():
            return []
        drafts: list[EventDraft] = [
            (ev.AttemptFinished(outcome=Outcome.TIMED_OUT), a.number) for a in job.open_attempts
        ]
        return [*drafts, (ev.Expired(deadline=deadline.kind, error=expiry_error(job, deadline.kind, limit)), None)]

    async def beat(self) -> None:
        """Write this worker's heartbeat: that it is alive, and how busy it is."""
        await record_heartbeat(self._redis, self._clock, self._worker_id, self._state())
        emit("worker.beat", worker=self._worker_id, count=self._state().get("running", 0), lag_seconds=self._lag)

    async def deregister(self) -> None:
        """Remove this worker's heartbeat."""
        await remove_heartbeat(self._redis, self._worker_id)
