"""Reading jobs and acting on them: get, list, cancel, retry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.long_poll import wait_until
from api.jobs.submission import identifier
from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import ask
from api.schema.openapi import JOB, JOB_ID, LIMIT, WAIT, DirectRoute, json_body, operation, parameter
from api.schema.requests import Accept, EmptyBody, instant
from api.schema.responses import TIME, one_of, ref
from api.web.auth import allowed, own_job
from api.web.body import read_optional
from api.web.params import query, seconds, whole
from api.web.problems import bad_parameter, from_validation
from api.web.responses import as_json, etag, job_headers, matches, view, view_all
from worker.jobs import events as ev
from worker.jobs.errors import Refused
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY, Status
from worker.safety import messages
from worker.store import channels, keys
from worker.store.apps import ApiKey
from worker.store.commands import Command
from worker.store.jobs.listing import ListFilters, list_jobs
from worker.store.jobs.stored_job import StoredJob
from worker.store.lifecycle.erasure import erase

router = APIRouter(route_class=DirectRoute, tags=["jobs"])
_SEEN: Final = ("ETag", "Retry-After", "X-Vigil-Served-Model", "X-Vigil-Substituted")
_FILTERS: Final = ("status", "model", "end_user", "created_after", "created_before")


@router.get(
    JOB,
    **operation(
        "get_job",
        "Get a job",
        {200: ("The job.", "Job"), 304: ("Unchanged since the ETag.", None)},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID, WAIT, parameter("If-None-Match", "An ETag of before.", where="header")),
        headers=_SEEN,
    ),
)
async def get_one(request: Request) -> Response:
    """The job, at once or at its next change of status."""
    key = await allowed(request, "read")
    wait = seconds(query(request, "wait").get("wait"))
    stored = await own_job(request, key)
    seen = await ask(request, view(request, stored))
    if wait and not stored.job.settled and _knows(request, stored, seen):
        before = stored.job.status
        stored = await wait_until(parts_of(request), stored, lambda status: status != before, wait)
        seen = await view(request, stored)
    headers = {"ETag": etag(stored.job, seen), **job_headers(stored.job)}
    if matches(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return as_json(seen, headers=headers)


def _knows(request: Request, stored: StoredJob, seen: dict[str, Any]) -> bool:
    """False when the caller's ETag shows that it is behind: then there is nothing to wait for."""
    return "if-none-match" not in request.headers or matches(request, etag(stored.job, seen))


@router.get(
    "/v1/jobs",
    **operation(
        "list_jobs",
        "List jobs, newest first",
        {200: ("A page.", "JobList")},
        scope="read",
        parameters=(
            parameter("status", "Only this status.", one_of(*Status)),
            parameter("model", "Only this requested model."),
            parameter("end_user", "Only this end user's."),
            parameter("created_after", "From this time on.", TIME),
            parameter("created_before", "Before this time.", TIME),
            LIMIT,
            parameter("cursor", "The next_cursor of the page before."),
        ),
    ),
)
async def list_some(request: Request) -> Response:
    """A page of the app's jobs."""
    key, parts = await allowed(request, "read"), parts_of(request)
    sent = query(request, *_FILTERS, "limit", "cursor")
    limit, cursor = whole("limit", sent.get("limit"), 20, 1, 100), sent.get("cursor")
    filters = await ask(request, _filters(parts, key, sent))
    found, more = await ask(request, list_jobs(parts.redis, key.app, filters, limit, cursor, parts.jobs.load))
    data = await view_all(request, found)
    return as_json({"object": "list", "data": data, "next_cursor": more})


async def _filters(parts: AppContext, key: ApiKey, sent: dict[str, str]) -> ListFilters:
    status = sent.get("status")
    if status is not None and status not in set(Status):
        raise bad_parameter("status", f"status is one of {', '.join(Status)}.")
    times = {}
    for name in ("created_after", "created_before"):
        try:
            times[name] = instant(sent[name]) if name in sent else None
        except ValueError as error:
            raise bad_parameter(name, f"{name} {error}.") from None
    person = await identifier(parts, key.app, sent.get("end_user"))
    return ListFilters(status=status, model=sent.get("model"), safety_identifier=person, **times)


@router.delete(
    JOB,
    **operation(
        "delete_job",
        "Delete a job's content",
        {204: ("What was asked and came back is gone; the record and its trail stay.", None)},
        scope="submit",
        problems=(404, 409),
        parameters=(JOB_ID,),
    ),
)
async def delete(request: Request) -> Response:
    """Only of a job that is over: 409 `not_settled` says to cancel it first. Again changes nothing."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    query(request)
    stored = await own_job(request, key)
    await ask(request, erase(parts.redis, parts.jobs, stored, "deleted", key.id))
    return Response(status_code=204)


@router.post(
    f"{JOB}/cancel",
    **operation(
        "cancel_job",
        "Cancel a job",
        {200: ("The job, and whether an upstream call was under way.", "CancelledJob")},
        scope="submit",
        problems=(400, 404, 413, 415),
        parameters=(JOB_ID,),
    ),
)
async def cancel(request: Request) -> Response:
    """A waiting job is cancelled now; a running one is asked to stop; a settled one stays as it is."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    query(request)
    _expect(EmptyBody, await read_optional(request, parts.settings.max_body_bytes))
    stored = await own_job(request, key)
    job = await ask(request, parts.jobs.change(stored.job.id, _cancel(key), writes=_asks("cancel")))
    under_way = await ask(request, _under_way(parts, job))
    seen = await ask(request, view(request, replace(stored, job=job)))
    return as_json({**seen, "cancel": {"upstream_under_way": under_way}}, headers=job_headers(job))


def _expect(shape: type[EmptyBody | Accept], sent: Any) -> Any:
    try:
        return shape.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error, sent) from None


def _cancel(key: ApiKey) -> Any:
    def decide(job: Job) -> Sequence[EventDraft]:
        if job.settled or job.cancel_requested_at is not None:
            return []
        if job.status in UNDER_WAY:
            return [(ev.CancelRequested(by=key.id), None)]
        error = messages.job_error("cancelled")
        return [(ev.Cancelled(upstream_under_way=False, billed=False, error=error, by=key.id), None)]

    return decide


def _asks(word: str) -> Any:
    """The same commit tells the holder of the lease, by the word it reads at its next renewal and by a message now."""

    def writes(after: Job) -> list[Command]:
        if after.settled:
            return []
        return [("HSET", keys.job(after.id), "ctl", word), ("PUBLISH", channels.CONTROL, after.id)]

    return writes


async def _under_way(parts: AppContext, job: Job) -> bool:
    if job.status is Status.CANCELLED:
        last = (await parts.jobs.trail(job.id, job.version - 1))[-1:]
        return any(bool(event["data"]["upstream_under_way"]) for event in last)
    return not job.settled and bool(job.open_attempts)


@router.post(
    f"{JOB}/retry",
    **operation(
        "accept_offer",
        "Accept the open offer of a faster model",
        {200: ("The job; the faster model takes over.", "Job")},
        scope="submit",
        problems=(404, 409),
        parameters=(JOB_ID,),
        body=json_body(ref("Accept"), {"model": "gpt-5.6-luna"}, required=False),
    ),
)
async def retry(request: Request) -> Response:
    """409 without an open offer of that model, and always after a block (promise P2)."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    query(request)
    wanted = _expect(Accept, await read_optional(request, parts.settings.max_body_bytes)).model
    stored = await own_job(request, key)
    job = await ask(request, parts.jobs.change(stored.job.id, _accept(key, wanted), writes=_asks("offer")))
    return as_json(await ask(request, view(request, replace(stored, job=job))), headers=job_headers(job))


def _accept(key: ApiKey, wanted: str | None) -> Any:
    def decide(job: Job) -> Sequence[EventDraft]:
        if job.status is Status.BLOCKED:
            raise Refused("blocked", "The provider withheld this job's content; it is not tried again on any model.")
        if job.offer is None or wanted not in {None, job.offer.model}:
            raise Refused("no_offer", "The job has no open offer of this model; `offer` shows one while it stands.")
        return [(ev.OfferAccepted(model=job.offer.model, by=key.id), None)]

    return decide
