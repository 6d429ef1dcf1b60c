"""The leases that this process holds, renewed together at a third of their time, off every job's own path.

Only Redis says whether a lease is ours; a local clock could only end trust, and every write is fenced by the token
anyway. Also the ear for what the API asks of a job's holder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from worker.jobs.errors import StoreUnavailable
from worker.store.jobs.repository import Jobs
from worker.tasks.rounds import loop_pass

LOST = "LOST"
Ask = Callable[[str], None]
"""Called with a word of control ("cancel", …) or LOST."""


class Leases:
    """Token and ear of every job that runs here."""

    def __init__(self, jobs: Jobs, lease_seconds: float) -> None:
        self._jobs, self.seconds = jobs, lease_seconds
        self._held: dict[str, tuple[str, Ask]] = {}
        self._now = asyncio.Event()

    def hold(self, job_id: str, token: str, ask: Ask) -> None:
        """From now on the lease is renewed and `ask` hears of it."""
        self._held[job_id] = (token, ask)

    def release(self, job_id: str, token: str) -> None:
        """No more renewals; what another wake-up of the same job holds stays."""
        if self._held.get(job_id, ("",))[0] == token:
            del self._held[job_id]

    def lost(self, job_id: str) -> None:
        """Someone was told by Redis that the lease of the job is not ours."""
        held = self._held.pop(job_id, None)
        if held is not None:
            held[1](LOST)

    def look(self, job_id: str) -> None:
        """The API asks something of this job's holder; find out now rather than at the next renewal."""
        if job_id in self._held:
            self._now.set()

    def tell(self, job_id: str, word: str) -> None:
        """A word for the holder of the job, if that is us: a hint, which nobody keeps."""
        if job_id in self._held:
            self._held[job_id][1](word)

    async def run(self) -> None:
        """Renews until cancelled."""
        while True:
            wait = self.seconds / 3
            try:
                with loop_pass("renewal of leases") as one:
                    await self.renew()
                wait = min(wait, 0.5) if one.broken else wait
            except StoreUnavailable:
                wait = min(wait, 0.5)  # Redis is away: nobody can take the jobs either; be quick when it is back
            try:
                async with asyncio.timeout(wait):
                    await self._now.wait()
            except TimeoutError:
                pass
            self._now.clear()

    async def renew(self) -> None:
        """Every lease is renewed, or its holder has been told that it is lost or what is asked."""
        held = [(job_id, token) for job_id, (token, _) in self._held.items()]
        if not held:
            return
        for (job_id, token), said in zip(held, await self._jobs.renew(self.seconds, held), strict=True):
            current = self._held.get(job_id)
            if said and current is not None and current[0] == token:
                if said == LOST:
                    del self._held[job_id]
                current[1](said)
