"""Runs a job again that failed, expired or was cancelled: as a new job with the same content, which names it."""

from __future__ import annotations

from typing import Any, Final

from api.jobs.acting import by_person
from api.jobs.media_upload import uploaded_again
from api.jobs.request_digests import Digests
from api.jobs.submission import JobRequest, Rerun, submit
from api.runtime.context import AppContext
from api.schema.requests import Submit, Webhook
from api.web.rate_limit_headers import quota_of
from worker.jobs.errors import Refused
from worker.jobs.record import Job
from worker.jobs.view import LOCKED
from worker.safety.rerun import refusal_of_rerun
from worker.store.admission.rate_limit import RateMeter
from worker.store.apps import ApiKey
from worker.store.connection.kept_secrets import DIGEST, input_digest
from worker.store.jobs.inputs import KeptMedia
from worker.store.jobs.stored_job import StoredJob

_NOTE: Final = "job.rerun"
_EXPIRED: Final = "The job's input is no longer kept, so it can't be run again; submit it anew with its content."
_UNREADABLE: Final = "The job's content can't be read; the operators find the reason in their logs."


async def rerun(
    context: AppContext,
    key: ApiKey,
    old: StoredJob,
    trace: dict[str, str],
    idempotency_key: str | None,
    meter: RateMeter,
    base: str,
) -> tuple[StoredJob, bool]:
    """Return (the new job, whether an earlier request with the same idempotency key had made it).

    Both jobs' audit trails say so. A new job is charged to `meter`. Raises Refused if the old job may not be run again,
    and what `submit` raises.
    """
    digest = input_digest(await context.secrets.get(DIGEST), {"rerun_of": old.job.id})
    if idempotency_key is not None:
        found = await context.jobs.find_repeated(key.app, idempotency_key, digest)
        if found is not None:
            return found, True
    await refuse_rerun(context, old.job)
    content, media = await _content_of(context, old)
    body, digests = _body_of(old, content), Digests(old.job.input_digest or "", digest)
    if media is not None:
        await context.job_access.refuse_copy(key.app, media.size, meter, quota_of(context.settings, key))
    of = Rerun(old.job, old.private.get("state"), content.get("ids"))
    async with uploaded_again(context, key.app, media) as upload:
        request = JobRequest(key, body, digests, trace, meter, base, idempotency_key, rerun_of=of, **upload)
        stored, replayed = await submit(context, request)
    if not replayed:
        noted = {"rerun": stored.job.id, **by_person(key)}
        await context.trail.note(_NOTE, app=key.app, job_id=old.job.id, by=key.id, why="", **noted)
    return stored, replayed


async def refuse_rerun(context: AppContext, job: Job) -> None:
    """Raise Refused if the job may not be run again: also if any rerun of the same content was blocked."""
    refused = await refusal_of(context, job)
    if refused is not None:
        raise refused


async def refusal_of(context: AppContext, job: Job) -> Refused | None:
    """Return why the job may not be run again, None if it may be."""
    return refusal_of_rerun(job, series_blocked=await context.jobs.is_series_blocked(job))


async def _content_of(context: AppContext, old: StoredJob) -> tuple[dict[str, Any], KeptMedia | None]:
    """Return (the job's input, its long images and files). Raises Refused when it is gone."""
    content, media = await context.jobs.load_parts(old.job.id)
    if content is None:
        raise Refused("content_expired", _EXPIRED, 410)
    if LOCKED in old.private:
        raise Refused("content_damaged", _UNREADABLE, 410)
    return content, media


def _body_of(old: StoredJob, content: dict[str, Any]) -> Submit:
    """Return the request that submits the job's content again."""
    hook = old.private.get("webhook")
    return Submit.model_construct(  # it was checked when it was submitted; `submit` checks what may have changed since
        model=old.job.requested_model,
        input=content["input"],
        instructions=content.get("instructions"),
        params=content.get("params") or {},
        end_user=old.private.get("end_user"),
        policy=old.job.policy,
        webhook=Webhook.model_construct(url=hook["url"], payload=hook["payload"], events=tuple(hook["events"]))
        if hook
        else None,
        not_before=None,
        priority=old.job.priority,
        metadata=old.private.get("metadata") or {},
        store=old.job.store,
    )
