"""Processes notices of the provider's safety team: reads their pages, joins them to jobs, quarantines end users.

A notice that came before our own record of the request that it names is processed again. No notice settles a job.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import Refused, StoreUnavailable
from worker.safety.appeals import AppealStep
from worker.safety.notices import QUARANTINING, WARNING, SafetyNotice
from worker.store.audit.trail import Trail
from worker.store.end_users.appeals import Appeals
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.provider_ids import end_user_of, job_of
from worker.store.jobs.repository import Jobs
from worker.store.provider.safety_notices import SafetyNotices
from worker.tasks.loop import run_every
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import report_internal_error
from worker.upstream.client import Provider
from worker.upstream.safety_pages import safety_page

_INTERVAL_S: Final = 1.0
_AUDIT_ACTION: Final = "provider.notice"
"""The name of its record in the audit trail."""

QuarantineEndUser = Callable[[str, SafetyNotice], Awaitable[None]]
"""Puts the end user (app, notice with its safety identifier) into quarantine."""


ProviderOf = Callable[[str], Provider | None]
"""Gives the connection of the account of this name, None if there is no such account."""


async def log_notice(app: str, notice: SafetyNotice) -> None:
    """Report the notice in the log, and do nothing else: the default, where there is no quarantine."""
    emit("notice.end_user", app=app, code=notice.type)


class NoticeProcessor:
    """Processes what is due, once a second, until cancelled; several workers share the work."""

    def __init__(
        self,
        redis: ArqRedis,
        notices: SafetyNotices,
        provider_of: ProviderOf,
        clock: Clock,
        quarantine_end_user: QuarantineEndUser = log_notice,
    ) -> None:
        self._redis, self._notices, self._provider_of, self._clock = redis, notices, provider_of, clock
        self._jobs, self._trail = Jobs(redis, clock), Trail(redis, clock)
        self._quarantine_end_user = quarantine_end_user
        self._quarantine, self._appeals = Quarantine(redis, clock), Appeals(redis, clock)

    async def run(self) -> None:
        """Process every notice when it is due, through every loss of Redis."""
        await run_every(_INTERVAL_S, "notices", self.process_due)

    async def process_due(self) -> None:
        """Process what is due now; what could not be finished falls due again by itself."""
        due = await self._notices.claim_due()
        for done in await asyncio.gather(*(self._process(notice) for notice in due), return_exceptions=True):
            if isinstance(done, BaseException):
                if not isinstance(done, StoreUnavailable | asyncio.CancelledError):
                    report_internal_error("notice.broke", done)
                elif isinstance(done, asyncio.CancelledError):
                    raise done

    async def _process(self, notice: SafetyNotice) -> None:
        before, notice = notice, notice.evolve(tries=notice.tries + 1)
        notice = await self._with_end_user(await self._joined(notice))  # first what is known without a request
        if notice.page is not None and notice.lookup == "pending":
            notice = await self._with_end_user(await self._joined(await self._looked_up(notice)))
        if notice.type == WARNING and notice.app is not None and notice.safety_identifier is not None:
            await self._quarantine.record_warning(notice.app, notice.safety_identifier, notice.id, notice.at)
        await self._on_record(notice, [job_id for job_id in notice.jobs if job_id not in before.jobs])
        await self._link_to_appeals(notice)
        await self._notices.update(notice)
        if not before.tries:
            emit("notice.received", account=notice.account, code=notice.type, count=len(notice.jobs))

    async def _looked_up(self, notice: SafetyNotice) -> SafetyNotice:
        kind, name = notice.page or ("", "")
        provider = self._provider_of(notice.account)
        if provider is None:
            return notice.evolve(lookup="refused")  # no worker has the account any more
        found = await safety_page(provider, kind, name, f"notice-{self._clock.random_bytes(8).hex()}")
        if found == "unavailable":
            return notice
        if found == "refused":
            emit("notice.page_refused", code=notice.type)
            return notice.evolve(lookup="refused")
        return notice.learned(found)

    async def _joined(self, notice: SafetyNotice) -> SafetyNotice:
        """Return the notice with the job whose request it names, or with the newest jobs of the end user it names."""
        job_id = await job_of(self._redis, notice.request_id, notice.response_id)
        if job_id is not None:
            notice = notice.evolve(jobs=(job_id,))
        if notice.safety_identifier is not None:
            end_user = await end_user_of(self._redis, notice.safety_identifier)
            if end_user is not None:
                jobs = notice.jobs if notice.about == "request" else end_user.jobs
                return notice.evolve(app=end_user.app, jobs=jobs)
        return notice

    async def _on_record(self, notice: SafetyNotice, jobs: Sequence[str]) -> None:
        """Note the notice in the audit trail of each job; a job that is gone has none."""
        for job_id in jobs:
            stored = await self._jobs.load(job_id)
            if stored is not None:
                fields = {"notice": notice.id, "category": notice.category, "subject": notice.subject}
                with contextlib.suppress(Refused):
                    app = stored.job.app
                    await self._trail.note(
                        _AUDIT_ACTION, app=app, job_id=job_id, by="provider", why=notice.type, **fields
                    )

    async def _link_to_appeals(self, notice: SafetyNotice) -> None:
        """Link the notice to the open appeals that name its case, with the job whose request it names."""
        if notice.subject is None:
            return
        jobs = notice.jobs if notice.about == "request" else ()
        app = notice.app
        if app is None and jobs:
            stored = await self._jobs.load(jobs[0])
            app = stored.job.app if stored is not None else None
        if app is not None:
            step = AppealStep(kind="notice", at=self._clock.now(), by="provider", provider_case=notice.subject)
            await self._appeals.link_notice(app, notice.subject, notice.id, jobs, step)

    async def _with_end_user(self, notice: SafetyNotice) -> SafetyNotice:
        if notice.type not in QUARANTINING or notice.shut_out or notice.app is None or notice.safety_identifier is None:
            return notice
        await self._quarantine_end_user(notice.app, notice)
        return notice.evolve(shut_out=True)
