"""What follows from a notice of the provider's safety team: its page is read, it is joined to jobs, its end user is
shut out. A notice that came before our own record of the request it names is looked at again.

Must not know: HTTP, signatures, how a job is settled: no notice ever settles one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import Refused, StoreUnavailable
from worker.safety.notices import QUARANTINING, WARNING, SafetyNotice
from worker.store.admission.quarantine import Quarantine
from worker.store.audit.trail import Trail
from worker.store.jobs.provider_ids import end_user_of, job_of
from worker.store.jobs.repository import Jobs
from worker.store.provider.safety_notices import SafetyNotices
from worker.tasks.rounds import loop_pass
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import broke
from worker.upstream.client import Provider
from worker.upstream.safety_pages import safety_page

_INTERVAL: Final = 1.0
_ACT: Final = "provider.notice"
"""The name of its record in the audit trail."""

ShutOut = Callable[[str, SafetyNotice], Awaitable[None]]
"""Puts the end user (app, notice with its safety identifier) into quarantine."""


async def nobody_shut_out(app: str, notice: SafetyNotice) -> None:
    """The seam where the quarantine joins in: without one, the notice on the job and in the log is all that is said."""
    emit("notice.end_user", app=app, code=notice.type)


class NoticeProcessor:
    """Looks at what is due, once a second, until cancelled; several workers share the work."""

    def __init__(
        self,
        redis: ArqRedis,
        notices: SafetyNotices,
        provider: Provider,
        clock: Clock,
        shut_out: ShutOut = nobody_shut_out,
    ) -> None:
        self._redis, self._notices, self._provider, self._clock = redis, notices, provider, clock
        self._jobs, self._trail, self._shut_out = Jobs(redis, clock), Trail(redis, clock), shut_out
        self._quarantine = Quarantine(redis, clock)

    async def run(self) -> None:
        """Every notice is looked at when it is due, through every loss of Redis."""
        while True:
            with contextlib.suppress(StoreUnavailable), loop_pass("notices"):
                await self.look()
            await asyncio.sleep(_INTERVAL)

    async def look(self) -> None:
        """What is due now has been looked at; what could not be finished falls due again by itself."""
        due = await self._notices.claim_due()
        for done in await asyncio.gather(*(self._one(notice) for notice in due), return_exceptions=True):
            if isinstance(done, BaseException):
                if not isinstance(done, StoreUnavailable | asyncio.CancelledError):
                    broke("notice.broke", done)
                elif isinstance(done, asyncio.CancelledError):
                    raise done

    async def _one(self, notice: SafetyNotice) -> None:
        before, notice = notice, notice.evolve(tries=notice.tries + 1)
        notice = await self._with_end_user(await self._joined(notice))  # first what is known without asking anybody
        if notice.page is not None and notice.lookup == "pending":
            notice = await self._with_end_user(await self._joined(await self._looked_up(notice)))
        if notice.type == WARNING and notice.app is not None and notice.safety_identifier is not None:
            await self._quarantine.record_warning(notice.safety_identifier, notice.id, notice.at)
        await self._on_record(notice, [job_id for job_id in notice.jobs if job_id not in before.jobs])
        await self._notices.update(notice)
        if not before.tries:
            emit("notice.received", code=notice.type, count=len(notice.jobs))

    async def _looked_up(self, notice: SafetyNotice) -> SafetyNotice:
        kind, name = notice.page or ("", "")
        found = await safety_page(self._provider, kind, name, f"notice-{self._clock.dice(8).hex()}")
        if found == "unavailable":
            return notice
        if found == "refused":
            emit("notice.page_refused", code=notice.type)
            return notice.evolve(lookup="refused")
        return notice.learned(found)

    async def _joined(self, notice: SafetyNotice) -> SafetyNotice:
        """With the job whose request it names, or with the newest jobs of the end user it names."""
        job_id = await job_of(self._redis, notice.request_id, notice.response_id)
        if job_id is not None:
            notice = notice.evolve(jobs=(job_id,))
        if notice.safety_identifier is not None:
            person = await end_user_of(self._redis, notice.safety_identifier)
            if person is not None:
                jobs = notice.jobs if notice.about == "request" else person.jobs
                return notice.evolve(app=person.app, jobs=jobs)
        return notice

    async def _on_record(self, notice: SafetyNotice, jobs: Sequence[str]) -> None:
        """The audit trail of each job tells of the notice; a job that is gone has none."""
        for job_id in jobs:
            stored = await self._jobs.load(job_id)
            if stored is not None:
                told = {"notice": notice.id, "category": notice.category, "subject": notice.subject}
                with contextlib.suppress(Refused):
                    app = stored.job.app
                    await self._trail.note(_ACT, app=app, job_id=job_id, by="provider", why=notice.type, **told)

    async def _with_end_user(self, notice: SafetyNotice) -> SafetyNotice:
        if notice.type not in QUARANTINING or notice.shut_out or notice.app is None or notice.safety_identifier is None:
            return notice
        await self._shut_out(notice.app, notice)
        return notice.evolve(shut_out=True)
