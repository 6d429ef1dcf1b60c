"""What nobody's stream would notice: waiting jobs whose deadline has passed, and the sign of life of this worker.

Several sweepers at once are harmless: each change is a guarded commit. The work grows with what is due, not with
what is stored: leases and due times are the claim's business.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.deadline import deadline_of
from worker.jobs.errors import AlreadySettled, IllegalEvent, Refused, StoreUnavailable
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY, Outcome
from worker.safety import words
from worker.store import keys
from worker.store.account import Circuit
from worker.store.jobs import Jobs, Said
from worker.store.pool import asking
from worker.telemetry.log import log

State = Callable[[], dict[str, object]]
INTERVAL = 0.5
_BEAT_EVERY = 4  # sweeps


class Sweeper:
    """Sweeps until cancelled."""

    def __init__(
        self, redis: ArqRedis, jobs: Jobs, clock: Clock, circuit: Circuit, worker_id: str, state: State
    ) -> None:
        self._redis, self._jobs, self._clock, self._circuit = redis, jobs, clock, circuit
        self._worker_id, self._state = worker_id, state

    async def run(self) -> None:
        """A sweep twice a second, a heartbeat every two."""
        sweeps = 0
        while True:
            try:
                await self.sweep()
                if sweeps % _BEAT_EVERY == 0:
                    await self.beat()
            except StoreUnavailable:
                pass
            sweeps += 1
            await asyncio.sleep(INTERVAL)

    async def sweep(self) -> None:
        """Every waiting job whose deadline has passed is expired, and a trial is let through an open circuit."""
        await self._circuit.probe()
        for job_id in await self._jobs.overdue():
            try:
                await self._jobs.change(job_id, self._expire)
            except (AlreadySettled, Refused):
                async with asking("forget a deadline"):
                    await self._redis.zrem(keys.DEADLINE, job_id)
            except IllegalEvent as error:
                log("sweep.stuck", logging.ERROR, job=job_id, error=type(error).__name__)

    def _expire(self, job: Job) -> list[Said]:
        deadline = deadline_of(job)
        if job.status in UNDER_WAY or deadline is None or deadline.at > self._clock.now():
            return []
        said: list[Said] = [(ev.AttemptFinished(outcome=Outcome.TIMED_OUT), a.number) for a in job.open_attempts]
        return [*said, (ev.Expired(deadline=deadline.kind, error=words.job_error(deadline.kind)), None)]

    async def beat(self) -> None:
        """Says that this worker is alive, and how busy it is."""
        now = self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        async with asking("beat"):
            await self._redis.hset(
                keys.WORKERS, self._worker_id, json.dumps({"id": self._worker_id, "beat_at": now, **self._state()})
            )

    async def leave(self) -> None:
        """Says that this worker is gone."""
        async with asking("say goodbye"):
            await self._redis.hdel(keys.WORKERS, self._worker_id)
