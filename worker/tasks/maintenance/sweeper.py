"""What nobody's stream would notice: waiting jobs whose deadline has passed, and the sign of life of this worker.

Several sweepers at once are harmless: each change is a guarded commit. The work grows with what is due, not with
what is stored: leases and due times are the claim's business.
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
from worker.safety import messages
from worker.store.admission.circuit_breaker import CircuitBreaker
from worker.store.admission.pauses import Pauses
from worker.store.admission.quarantine import Quarantine
from worker.store.connection.locks import should_warn
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.erasure import Eraser
from worker.store.lifecycle.queue_repair import QueueRepair
from worker.store.stats import queue_depth
from worker.store.stats.worker_registry import record_heartbeat, remove_heartbeat
from worker.tasks.maintenance.quarantine_cleanup import clear
from worker.tasks.rounds import loop_pass
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import broke

State = Callable[[], dict[str, object]]
INTERVAL = 0.5
_BEAT_EVERY = 4  # sweeps
_LOOK_EVERY = 20


class Sweeper:
    """Sweeps until cancelled."""

    def __init__(
        self,
        redis: ArqRedis,
        jobs: Jobs,
        clock: Clock,
        circuit: CircuitBreaker,
        worker_id: str,
        state: State,
        stuck_seconds: float = 600.0,
    ) -> None:
        self._redis, self._jobs, self._clock, self._circuit = redis, jobs, clock, circuit
        self._worker_id, self._state, self._stuck_seconds = worker_id, state, stuck_seconds
        self._late = 0.0
        self._forgetter = Eraser(redis, jobs, clock)
        self._repair = QueueRepair(redis, clock)
        self._pauses, self._quarantine = Pauses(redis, clock), Quarantine(redis, clock)

    async def run(self) -> None:
        """A sweep twice a second, a heartbeat every two, a look at the queue's age every ten."""
        sweeps = 0
        while True:
            try:
                await self.sweep()
                if sweeps % _BEAT_EVERY == 0:
                    with loop_pass("heartbeat"):
                        await self.beat()
                if sweeps % _LOOK_EVERY == 0:
                    with loop_pass("look at the queue"):
                        await self.look()
                    with loop_pass("repair of the queue"):
                        await self._repair.repair(self._jobs.current)
                emit("sweep.done", worker=self._worker_id)
            except StoreUnavailable:
                pass  # the process's `StoreWatch` says so
            sweeps += 1
            began = self._clock.monotonic()
            await asyncio.sleep(INTERVAL)
            self._late = self._clock.monotonic() - began - INTERVAL

    async def look(self) -> None:
        """Ops have been told, by one worker, when a job has been ready for too long: nobody takes it."""
        found = await queue_depth.depths(self._redis, self._clock)
        age = found.oldest_queued_seconds or 0.0
        if age > self._stuck_seconds and await should_warn(self._redis, "queue.stuck", self._stuck_seconds):
            emit("queue.stuck", seconds=round(age, 1), count=found.queued)

    async def sweep(self) -> None:
        """Every waiting job whose deadline has passed is expired, a trial is let through an open circuit, and what a
        pause holds that is over falls due.
        """
        with loop_pass("probe of the circuit"):
            await self._circuit.start_trial()
        with loop_pass("sweep of pauses"):
            await self._pauses.sweep()
        with loop_pass("sweep of what is not stored"):
            await self._forgetter.sweep()
        with loop_pass("sweep of the quarantine"):
            await clear(self._jobs, self._quarantine)
        with loop_pass("sweep of deadlines"):
            for job_id in await self._jobs.overdue():
                await self._overdue(job_id)

    async def _overdue(self, job_id: str) -> None:
        """The job has expired, or has no deadline any more."""
        with loop_pass("end of a deadline"):
            try:
                await self._jobs.change(job_id, self._expire)
            except (AlreadySettled, Refused):
                await self._jobs.remove_deadline(job_id)
            except IllegalEvent as error:
                broke("sweep.stuck", error, job_id=job_id)

    def _expire(self, job: Job) -> list[EventDraft]:
        deadline = deadline_of(job)
        if job.status in UNDER_WAY or deadline is None or deadline.at > self._clock.now():
            return []
        said: list[EventDraft] = [(ev.AttemptFinished(outcome=Outcome.TIMED_OUT), a.number) for a in job.open_attempts]
        return [*said, (ev.Expired(deadline=deadline.kind, error=messages.job_error(deadline.kind)), None)]

    async def beat(self) -> None:
        """Says that this worker is alive, and how busy it is."""
        await record_heartbeat(self._redis, self._clock, self._worker_id, self._state())
        emit("worker.beat", worker=self._worker_id, count=self._state().get("running", 0), lag_seconds=self._late)

    async def leave(self) -> None:
        """Says that this worker is gone."""
        await remove_heartbeat(self._redis, self._worker_id)
