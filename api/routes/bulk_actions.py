"""POST /v1/jobs/{id}/rerun and /v1/jobs/actions: run a job again; act on many jobs at once."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.bulk_actions import ActionRequest, run_actions
from api.jobs.rerun import rerun
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import IDEMPOTENCY_KEY, JOB, JOB_ID, LIMITED, json_body, operation
from api.schema.requests import EmptyBody, JobActionsRequest
from api.schema.responses import JobActionsView
from api.web.auth import authorize, load_own_job, require_scope
from api.web.body import read_json, read_optional_json
from api.web.forwarded import prefix
from api.web.params import base_url, idempotency_key, query_params
from api.web.rate_limit_headers import meter_of, rate_limit_headers
from api.web.responses import job_headers, json_response, view_job
from api.web.tracing_middleware import trace_of
from api.web.validation import validate
from worker.jobs.view_schema import JobView

routes = Routes("jobs")


@routes.post(
    f"{JOB}/rerun",
    operation(
        "rerun_job",
        "Run a job again",
        {202: ("The new job; `rerun_of` names the old one.", JobView)},
        scope="submit",
        problems=(400, 404, 409, 410, 413, 415),
        parameters=(JOB_ID, IDEMPOTENCY_KEY),
        headers=("Location", "Retry-After", "Idempotent-Replayed", *LIMITED),
    ),
)
async def rerun_job(request: Request) -> Response:
    """Submits the content of a failed, expired or cancelled job as a new job, with the same policy, end user, webhook
    and metadata.

    409 `blocked` always after a block, also of an earlier rerun; 410 once the content was deleted or is no longer kept.
    `retry` is another thing: it accepts the offer of a running job.
    """
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    idem, meter = idempotency_key(request), meter_of(context.settings, key)
    validate(EmptyBody, await read_optional_json(request, context.settings.body_limit))
    old = await load_own_job(request, key)
    running = rerun(context, key, old, trace_of(request.scope), idem, meter, base_url(request))
    stored, replayed = await with_deadline(request, running)
    headers = {"Location": f"{prefix(request.scope)}/v1/jobs/{stored.job.id}", **rate_limit_headers(meter)}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    shown = await with_deadline(request, view_job(request, stored))
    return json_response(shown, 202, headers | job_headers(stored.job))


@routes.post(
    "/v1/jobs/actions",
    operation(
        "act_on_jobs",
        "Cancel, run again, redeliver or delete the content of many jobs",
        {200: ("One outcome for each job, or of a dry run the count.", JobActionsView)},
        scope="submit",
        problems=(429,),
        parameters=(IDEMPOTENCY_KEY,),
        body=json_body(
            JobActionsRequest,
            {"action": "rerun", "filter": {"status": ["failed"], "code": "overloaded"}, "dry_run": True},
        ),
        headers=LIMITED,
    ),
)
async def act_on_jobs(request: Request) -> Response:
    """Does to each job what the action does to one, and is audited so; a job that refuses it stops no other.

    `ids` names up to 1,000 jobs; `filter` takes what the list of jobs takes, needs the scope `read` too, and acts on up
    to `limit` jobs, newest first: send `next_cursor` to go on. It runs nothing again that may have been withheld
    (409 `may_be_blocked`), unless it names the `code`. `dry_run` counts the jobs first. A call may be repeated: what is
    done is not done again, and a job is run again once for each Idempotency-Key.
    """
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    wanted = validate(JobActionsRequest, await read_json(request, context.settings.body_limit))
    if wanted.filter is not None:
        require_scope(key, "read")
    meter = meter_of(context.settings, key)
    caller = ActionRequest(key, meter, base_url(request), trace_of(request.scope), idempotency_key(request))
    return json_response(await run_actions(context, caller, wanted), headers=rate_limit_headers(meter))
