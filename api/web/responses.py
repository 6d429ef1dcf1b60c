"""Answers that carry a job: body, ETag, disclosure headers, when to ask again. Must not know how a job changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import parts_of
from api.runtime.store_deadline import SECONDS, within
from api.schema.views import dumps, job_view
from api.web.params import base_url, header
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.jobs.view import OUTPUT, mark_unreadable
from worker.store.jobs import batch_reads
from worker.store.jobs.repository import StoredJob
from worker.store.lifecycle.erasure import erased, was_read
from worker.store.provider.safety_notices import notices_named


def as_json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON bytes as an answer."""
    return Response(dumps(body), status, headers, media_type="application/json")


def fresh(job: Job, private: dict[str, Any], request: Request) -> dict[str, Any]:
    """A job that was just accepted: nothing has come back and nothing was told yet."""
    return job_view(job, private, None, None, base_url(request))


async def view_all(request: Request, jobs: Sequence[StoredJob], *, strict: bool = False) -> list[dict[str, Any]]:
    """The jobs as their app sees them; each names what of it can't be read. `strict`: an answer whose key is missing
    raises KeyMissing instead.
    """
    parts = parts_of(request)
    with_text = [s.job.id for s in jobs if s.job.attempts]
    told = [s.job.id for s in jobs if s.private.get("webhook")]
    answered = strict and any(stored.job.status is Status.COMPLETED for stored in jobs)  # no other shows its answer
    answers = await within(SECONDS, batch_reads.answers_or_none(parts.redis, with_text, need_key=answered))
    states = await within(SECONDS, batch_reads.message_states(parts.redis, told))
    known = await within(SECONDS, notices_named(parts.redis, [name for s in jobs for name in s.notices]))
    await within(SECONDS, was_read(parts.redis, parts.clock, [s.job for s in jobs]))
    base = base_url(request)
    return [
        job_view(
            s.job,
            _private(s, answers),
            answers.get(s.job.id),
            states.get(s.job.id),
            base,
            [known[name].view() for name in s.notices if name in known],
        )
        for s in jobs
    ]


def _private(stored: StoredJob, answers: Mapping[str, Any]) -> dict[str, Any]:
    """The private part; it says so where the answer can't be read, or is gone although nobody removed it."""
    job = stored.job
    kept = job.status is Status.COMPLETED and job.content_removed is None
    lost = answers[job.id] is None if job.id in answers else kept
    return mark_unreadable(stored.private, OUTPUT) if lost else stored.private


async def view(request: Request, stored: StoredJob) -> dict[str, Any]:
    """The job as its app sees it; it names what of it can't be read. Raises KeyMissing."""
    seen = (await view_all(request, [stored], strict=True))[0]
    if OUTPUT in seen["unreadable"]:
        now = await within(SECONDS, parts_of(request).jobs.load(stored.job.id, locked=True))
        if now is not None and erased(now):  # removed between the two looks
            return (await view_all(request, [now], strict=True))[0]
    return seen


def etag(job: Job, view_of_it: dict[str, Any]) -> str:
    """Strong: the record's version, and what changes without it: the webhook's state, the provider's notices, what
    can't be read.
    """
    hook, notices = view_of_it["webhook"], view_of_it["safety"]["notices"]
    parts = [str(job.version), *([hook["state"]] if hook else []), *view_of_it["unreadable"]]
    if notices:  # a notice says more once its page was read
        parts.append(hashlib.sha256(dumps(notices)).hexdigest()[:12])
    return f'"{".".join(parts)}"'


def matches(request: Request, tag: str) -> bool:
    """True when If-None-Match names this tag."""
    sent = ",".join(header(request.scope, b"if-none-match"))
    return any(one.strip().removeprefix("W/") in {tag, "*"} for one in sent.split(","))


def job_headers(job: Job) -> dict[str, str]:
    """When to ask again of an unfinished job; who served a finished one (promise P3)."""
    if not job.settled:
        return {"Retry-After": "15" if job.status is Status.CHECKING else "2"}
    headers = {}
    if job.served_model is not None:
        headers["X-Vigil-Served-Model"] = quote(job.served_model, safe="!#$&'*+-.^_`|~:/@()[]{}=,;? ")
        if job.disclosure is not None:
            headers["X-Vigil-Substituted"] = job.disclosure.reason
    return headers
