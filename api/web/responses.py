"""Responses that show a job: body, ETag, disclosure headers, Retry-After. Must not know how a job changes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import context_of
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from api.schema.responses import JobListView
from api.schema.views import dumps, job_view
from api.web.header_fields import header_values
from api.web.params import base_url
from api.web.receipt import note_answers
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.jobs.view import OUTPUT, mark_unreadable
from worker.jobs.view_schema import JobView, WaitingForView
from worker.store.jobs.stored_job import StoredJob
from worker.store.lifecycle.erasure import is_erased

_PLACE: Final = "~"  # what follows it in an ETag is the place in the queue
_MAX_BYTES_AT_ONCE: Final = 256 * 1024  # that are encoded before the event loop serves others


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response with this body as JSON."""
    return Response(dumps(body), status, headers, media_type="application/json")


async def list_response(page: JobListView) -> Response:
    """Return a response with a page of values, each of which may be large."""
    parts, size = list[bytes](), 0
    for row in page["data"]:
        parts.append(dumps(row))
        size += len(parts[-1])
        if size > _MAX_BYTES_AT_ONCE:
            size = 0
            await asyncio.sleep(0)
    end = dumps(page["next_cursor"])
    body = b'{"object":%b,"data":[%b],"next_cursor":%b}' % (dumps(page["object"]), b",".join(parts), end)
    return Response(body, media_type="application/json")


def view_accepted(job: Job, private: dict[str, Any], request: Request) -> JobView:
    """Return the view of a job that was just accepted: it has no output and no webhook message yet."""
    return job_view(job, private, None, None, base_url(request))


async def view_jobs(request: Request, jobs: Sequence[StoredJob], *, strict: bool = False) -> list[JobView]:
    """Return the jobs as their app sees them; each names the members that can't be read.

    `strict`: raise KeyMissing for an output whose encryption key is missing, and ArchiveUnavailable.
    """
    access = context_of(request).job_access
    attempted = [s.job.id for s in jobs if s.job.attempts]
    with_webhook = [s.job.id for s in jobs if s.private.get("webhook")]
    strict = strict and any(stored.job.status is Status.COMPLETED for stored in jobs)  # no other shows its output
    outputs = await with_timeout(STORE_TIMEOUT_S, access.outputs(attempted, strict=strict))
    states = await with_timeout(STORE_TIMEOUT_S, access.webhook_states(with_webhook))
    notices = await with_timeout(STORE_TIMEOUT_S, access.notices([name for s in jobs for name in s.notices]))
    waiting = [(s.job.id, s.job.app) for s in jobs if s.job.status is Status.QUEUED]
    places = await with_timeout(STORE_TIMEOUT_S, context_of(request).deployment.queue_places.of_jobs(waiting))
    note_answers(request.scope, [s.job for s in jobs])
    base, now = base_url(request), context_of(request).clock.now()
    return [
        job_view(
            s.job,
            _private(s, outputs),
            outputs.get(s.job.id),
            states.get(s.job.id),
            base,
            [notices[name].view() for name in s.notices if name in notices],
            places.get(s.job.id),
            waiting_for(s, now),
        )
        for s in jobs
    ]


def waiting_for(stored: StoredJob, now: datetime) -> WaitingForView | None:
    """Return the limit at which the job waits; an estimate whose time has passed says nothing any more."""
    wait = stored.waiting_for
    if wait is None or wait["until"] is None or wait["until"] > now:
        return wait
    return {**wait, "until": None}


def _private(stored: StoredJob, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the private part, marked if the output can't be read, or is missing although nobody removed it."""
    job = stored.job
    expected = job.status is Status.COMPLETED and job.content_removed is None
    lost = outputs[job.id] is None if job.id in outputs else expected
    return mark_unreadable(stored.private, OUTPUT) if lost else stored.private


async def view_job(request: Request, stored: StoredJob) -> JobView:
    """Return the job as its app sees it; it names the members that can't be read.

    Raises KeyMissing, ArchiveUnavailable.
    """
    shown = (await view_jobs(request, [stored], strict=True))[0]
    if OUTPUT in shown["unreadable"]:
        now = await with_timeout(STORE_TIMEOUT_S, context_of(request).jobs.load(stored.job.id, locked=True))
        if now is not None and is_erased(now):  # removed between the two reads
            return (await view_jobs(request, [now], strict=True))[0]
    return shown


def etag(job: Job, shown: JobView) -> str:
    """Return a strong ETag: the record's version, and what changes without it: the state of the webhook, the provider's
    notices, which members can't be read, the place in the queue or at a limit. `shown`: the job's view.
    """
    hook, notices = shown["webhook"], shown["safety"]["notices"]
    parts = [str(job.version), *([hook["state"]] if hook else []), *shown["unreadable"]]
    if notices:  # a notice grows once its page has been read
        parts.append(hashlib.sha256(dumps(notices)).hexdigest()[:12])
    waits = [one for one in (shown["queue"], shown["waiting_for"]) if one is not None]
    place = _PLACE + hashlib.sha256(dumps(waits)).hexdigest()[:12] if waits else ""
    return f'"{".".join(parts)}{place}"'


def matches_etag(request: Request, tag: str, *, but_place: bool = False) -> bool:
    """Return whether If-None-Match names this ETag; `but_place`: or one that differs by the place in the queue alone,
    which is nothing that a caller waits for.
    """
    sent = [
        one.strip().removeprefix("W/") for one in ",".join(header_values(request.scope, b"if-none-match")).split(",")
    ]
    if but_place:
        tag, sent = _without_place(tag), [_without_place(one) for one in sent]
    return any(one in {tag, "*"} for one in sent)


def _without_place(tag: str) -> str:
    head, place, _ = tag.partition(_PLACE)
    return f'{head}"' if place else tag


def job_headers(job: Job) -> dict[str, str]:
    """Return Retry-After for an unfinished job, and which model served a finished one (promise P3)."""
    if not job.settled:
        return {"Retry-After": "15" if job.status is Status.CHECKING else "2"}
    headers = {}
    if job.served_model is not None:
        headers["X-Vigil-Served-Model"] = quote(job.served_model, safe="!#$&'*+-.^_`|~:/@()[]{}=,;? ")
        if job.disclosure is not None:
            headers["X-Vigil-Substituted"] = job.disclosure.reason
    return headers
