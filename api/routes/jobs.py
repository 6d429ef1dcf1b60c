"""GET /v1/jobs and /v1/jobs/{id}: read jobs."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.long_poll import wait_until
from api.jobs.submission import identifier
from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from api.schema.components import returned
from api.schema.documented_route import Routes
from api.schema.openapi import JOB, JOB_ID, LIMIT, TIME, WAIT, operation, parameter
from api.schema.requests import instant
from api.schema.responses import JobListView
from api.web.auth import authorize, authorize_reader, load_own_job
from api.web.params import integer_param, query_params, wait_seconds
from api.web.problems import bad_parameter
from api.web.responses import etag, job_headers, json_response, list_response, matches_etag, view_job, view_jobs
from api.web.waiting import wait_for
from worker.jobs.states import Status
from worker.jobs.view_schema import JobView
from worker.store.apps import ApiKey
from worker.store.jobs.listing import ListFilters
from worker.store.jobs.stored_job import StoredJob

routes = Routes("jobs")
_HEADERS: Final = ("ETag", "Retry-After", "X-Vigil-Served-Model", "X-Vigil-Substituted")
_FILTERS: Final = ("status", "model", "end_user", "created_after", "created_before")


@routes.get(
    JOB,
    operation(
        "get_job",
        "Get a job",
        {200: ("The job.", JobView), 304: ("Unchanged since the ETag.", None)},
        scope="read",
        job_token=True,
        problems=(404,),
        parameters=(JOB_ID, WAIT, parameter("If-None-Match", "An ETag of an earlier response.", where="header")),
        headers=_HEADERS,
    ),
)
async def get_job(request: Request) -> Response:
    """Returns the job, at once or, with `wait`, at its next change of status."""
    key, _ = await authorize_reader(request)
    wait = wait_seconds(query_params(request, "wait", "token").get("wait"))
    stored = await load_own_job(request, key)
    shown = await with_deadline(request, view_job(request, stored))
    if wait and not stored.job.settled and _is_current(request, stored, shown):
        before = stored.job.status
        waiting = wait_until(context_of(request), stored, lambda status: status != before, wait)
        stored = await wait_for(request, waiting)
        shown = await view_job(request, stored)
    headers = {"ETag": etag(stored.job, shown), **job_headers(stored.job)}
    if matches_etag(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return json_response(shown, headers=headers)


def _is_current(request: Request, stored: StoredJob, shown: JobView) -> bool:
    """Return False if the caller's ETag is of an older state: then there is nothing to wait for."""
    return "if-none-match" not in request.headers or matches_etag(request, etag(stored.job, shown), but_place=True)


@routes.get(
    "/v1/jobs",
    operation(
        "list_jobs",
        "List jobs, newest first",
        {200: ("A page.", JobListView)},
        scope="read",
        parameters=(
            parameter("status", "Only jobs of this status.", returned(Status)),
            parameter("model", "Only jobs that request this model."),
            parameter("end_user", "Only jobs of this end user."),
            parameter("created_after", "Only jobs created at this time or later.", TIME),
            parameter("created_before", "Only jobs created before this time.", TIME),
            LIMIT,
            parameter("cursor", "The next_cursor of the previous page."),
        ),
    ),
)
async def list_jobs(request: Request) -> Response:
    """Returns a page of the app's jobs."""
    key, context = await authorize(request, "read"), context_of(request)
    params = query_params(request, *_FILTERS, "limit", "cursor")
    limit, cursor = integer_param("limit", params.get("limit"), 20, 1, 100), params.get("cursor")
    filters = await with_deadline(request, _filters(context, key, params))
    found, next_cursor = await with_deadline(request, context.job_access.page(key.app, filters, limit, cursor))
    data = await view_jobs(request, found)
    page: JobListView = {"object": "list", "data": data, "next_cursor": next_cursor}
    return await list_response(page)


async def _filters(context: AppContext, key: ApiKey, params: dict[str, str]) -> ListFilters:
    status = params.get("status")
    if status is not None and status not in set(Status):
        raise bad_parameter("status", f"status must be one of {', '.join(Status)}.")
    times = {}
    for name in ("created_after", "created_before"):
        try:
            times[name] = instant(params[name]) if name in params else None
        except ValueError as error:
            raise bad_parameter(name, f"{name} {error}.") from None
    end_user = await identifier(context, key.app, params.get("end_user"))
    return ListFilters(status=status, model=params.get("model"), safety_identifier=end_user, **times)
