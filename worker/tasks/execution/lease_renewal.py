"""The leases that this process holds, renewed together at a third of their time, off every job's own path.

Only Redis says whether a lease still holds; a local clock could only end trust, and every write is fenced by the token
anyway. A renewal also answers with what the API has asked of the job's holder, and passes it on to the run.
"""

from __future__ import annotations

import asyncio

from worker.jobs.errors import StoreUnavailable
from worker.store.jobs.repository import Jobs
from worker.tasks.execution.inbox import Control, Inbox, parse_control
from worker.tasks.loop import loop_pass

_RETRY_INTERVAL_S = 0.5


class Leases:
    """The token and the inbox of every job that runs here."""

    def __init__(self, jobs: Jobs, lease_seconds: float) -> None:
        self._jobs, self.seconds = jobs, lease_seconds
        self._leases: dict[str, tuple[str, Inbox]] = {}
        self._renew_now = asyncio.Event()

    def add(self, job_id: str, token: str, inbox: Inbox) -> None:
        """Renew the lease from now on, and put what concerns its job into `inbox`."""
        self._leases[job_id] = (token, inbox)

    def release(self, job_id: str, token: str) -> None:
        """Stop renewing, unless a later wake-up of the same job holds the lease now."""
        if self._leases.get(job_id, ("",))[0] == token:
            del self._leases[job_id]

    def mark_lost(self, job_id: str) -> None:
        """Inform the run that, as Redis has answered to a write, its lease is lost."""
        lease = self._leases.pop(job_id, None)
        if lease is not None:
            lease[1].put(Control.LEASE_LOST)

    def renew_soon(self, job_id: str) -> None:
        """Renew at once if the job runs here: the API has a request for its holder, which the renewal brings."""
        if job_id in self._leases:
            self._renew_now.set()

    def forward(self, job_id: str, text: str) -> None:
        """Pass a control message to the job if it runs here. It is a hint, stored nowhere."""
        if job_id in self._leases:
            self._leases[job_id][1].put(parse_control(text))

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            wait = self.seconds / 3
            try:
                with loop_pass("renewal of leases") as one:
                    await self.renew()
                wait = min(wait, _RETRY_INTERVAL_S) if one.broken else wait
            except StoreUnavailable:
                wait = min(wait, _RETRY_INTERVAL_S)  # nobody can take the jobs either; be quick when Redis is back
            try:
                async with asyncio.timeout(wait):
                    await self._renew_now.wait()
            except TimeoutError:
                pass
            self._renew_now.clear()

    async def renew(self) -> None:
        """Renew every lease and pass on what Redis answered: a request of the API, or that the lease is lost."""
        leases = [(job_id, token) for job_id, (token, _) in self._leases.items()]
        if not leases:
            return
        for (job_id, token), text in zip(leases, await self._jobs.renew(self.seconds, leases), strict=True):
            current = self._leases.get(job_id)
            if text and current is not None and current[0] == token:
                message = parse_control(text)
                if message is Control.LEASE_LOST:
                    del self._leases[job_id]
                current[1].put(message)
