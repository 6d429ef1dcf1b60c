"""Cancel a job, accept its offer of a faster model, delete its content."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import JOB, JOB_ID, json_body, operation
from api.schema.requests import EmptyBody, OfferAcceptance
from api.schema.responses import CancelledJobView
from api.web.auth import authorize, load_own_job
from api.web.body import read_optional_json
from api.web.params import query_params
from api.web.responses import job_headers, json_response, view_job
from api.web.validation import validate
from worker.jobs.view_schema import JobView

routes = Routes("jobs")


@routes.delete(
    JOB,
    operation(
        "delete_job",
        "Delete a job's content",
        {204: ("Input and output are removed; the record and its audit trail are kept.", None)},
        scope="submit",
        problems=(404, 409),
        parameters=(JOB_ID,),
    ),
)
async def delete_job(request: Request) -> Response:
    """Removes the content of a job that has ended; 409 `not_settled` before: cancel it first. Idempotent."""
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    stored = await load_own_job(request, key)
    await with_deadline(request, context.job_access.erase(stored, key.id))
    return Response(status_code=204)


@routes.post(
    f"{JOB}/cancel",
    operation(
        "cancel_job",
        "Cancel a job",
        {200: ("The job, and whether an upstream call was under way.", CancelledJobView)},
        scope="submit",
        problems=(400, 404, 413, 415),
        parameters=(JOB_ID,),
    ),
)
async def cancel_job(request: Request) -> Response:
    """Cancels a waiting job at once, requests a running one to stop, and leaves a settled one as it is."""
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    validate(EmptyBody, await read_optional_json(request, context.settings.body_limit))
    stored = await load_own_job(request, key)
    job, under_way = await with_deadline(request, context.job_control.request_cancel(stored.job.id, key.id))
    shown = await with_deadline(request, view_job(request, replace(stored, job=job)))
    cancelled: CancelledJobView = {**shown, "cancel": {"upstream_under_way": under_way}}
    return json_response(cancelled, headers=job_headers(job))


@routes.post(
    f"{JOB}/retry",
    operation(
        "accept_offer",
        "Accept the open offer of a faster model",
        {200: ("The job; the faster model takes over.", JobView)},
        scope="submit",
        problems=(404, 409),
        parameters=(JOB_ID,),
        body=json_body(OfferAcceptance, {"model": "gpt-5.6-luna"}, required=False),
    ),
)
async def accept_offer(request: Request) -> Response:
    """Continues the job on the offered model; 409 without an open offer of that model, and always after a block."""
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    accepted = validate(OfferAcceptance, await read_optional_json(request, context.settings.body_limit))
    stored = await load_own_job(request, key)
    job = await with_deadline(request, context.job_control.accept_offer(stored.job.id, accepted.model, key.id))
    shown = await with_deadline(request, view_job(request, replace(stored, job=job)))
    return json_response(shown, headers=job_headers(job))
