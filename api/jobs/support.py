"""The packet for the provider's support, of a job that was loaded."""

from __future__ import annotations

from starlette.requests import Request

from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from worker.jobs.view import shown_message
from worker.safety.packet import ShownMessage, build_packet
from worker.safety.packet_advice import AccountFacts
from worker.safety.packet_schema import SupportPacketView
from worker.safety.redact import Redacted
from worker.store.jobs.stored_job import StoredJob


async def packet_of(request: Request, stored: StoredJob, description: Redacted | None) -> SupportPacketView:
    """Return the packet; `description`: the app's own words, without secrets. It has no prompt and no output."""
    context, job = context_of(request), stored.job
    output = (await with_deadline(request, context.job_access.outputs([job.id]))).get(job.id) or {}
    by_name = await with_deadline(request, context.job_access.notices(stored.notices))
    notices = [by_name[name] for name in stored.notices if name in by_name]
    messages = {attempt.number: ShownMessage(*shown_message(attempt, output)) for attempt in job.attempts}
    settings = context.settings
    others = {one.name: one.organization for one in context.accounts.by_name.values() if one.organization is not None}
    account = AccountFacts(
        settings.surface, settings.account_email, settings.openai_org_id, settings.codex_workspace_id, others
    )
    appeals = await with_deadline(request, context.appeals.of(job.app, "job", job.id))
    return build_packet(job, messages, notices, description, context.clock.now(), account, appeals)
