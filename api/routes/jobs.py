"""GET /v1/jobs and /v1/jobs/{id}: read jobs."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.content_looks import has_content, record_read
from api.jobs.long_poll import wait_until
from api.jobs.search import FILTER_PARAMETERS, FILTERS, REPEATABLE, filter_of_query, list_filters
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import JOB, JOB_ID, LIMIT, WAIT, operation, parameter
from api.schema.responses import JobListView
from api.web.auth import authorize, authorize_reader, load_own_job
from api.web.params import integer_param, query_params, query_values, wait_seconds
from api.web.responses import etag, job_headers, json_response, list_response, matches_etag, view_job, view_jobs
from api.web.waiting import wait_for
from worker.jobs.view_schema import JobView
from worker.store.jobs.stored_job import StoredJob

routes = Routes("jobs")
_HEADERS: Final = ("ETag", "Retry-After", "X-Vigil-Served-Model", "X-Vigil-Substituted")


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
    await record_read(request, key, [stored.job] if has_content(shown) else [], "output")
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
            *FILTER_PARAMETERS,
            LIMIT,
            parameter("cursor", "The next_cursor of the previous page."),
        ),
    ),
)
async def list_jobs(request: Request) -> Response:
    """Returns a page of the app's jobs that fit all filters.

    Where filters rarely match together, a page may have fewer jobs than its limit, or none, although `next_cursor` says
    that the search is not over.
    """
    key, context = await authorize(request, "read"), context_of(request)
    params = query_values(request, *FILTERS, "limit", "cursor", repeatable=REPEATABLE)
    sent = {name: next(iter(params.pop(name, [])), None) for name in ("limit", "cursor")}
    limit, cursor = integer_param("limit", sent["limit"], 20, 1, 100), sent["cursor"]
    filters = await with_deadline(request, list_filters(context, key.app, filter_of_query(params)))
    found, next_cursor = await with_deadline(request, context.job_access.page(key.app, filters, limit, cursor))
    data = await view_jobs(request, found)
    read = [stored.job for stored, shown in zip(found, data, strict=True) if has_content(shown)]
    await record_read(request, key, read, "output")
    page: JobListView = {"object": "list", "data": data, "next_cursor": next_cursor}
    return await list_response(page)
