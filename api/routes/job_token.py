"""POST /v1/jobs/{id}/token: a short-lived token with which a browser reads one job."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import JOB, JOB_ID, json_body, operation
from api.schema.requests import JobTokenRequest
from api.schema.responses import JobTokenView
from api.web.auth import authorize, load_own_job
from api.web.body import read_optional_json
from api.web.params import query_params
from api.web.problems import Problem, fault
from api.web.responses import json_response
from api.web.validation import validate

routes = Routes("jobs")


@routes.post(
    f"{JOB}/token",
    operation(
        "create_job_token",
        "Create a token with which a browser reads this job",
        {200: ("The token, and when it ends.", JobTokenView)},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID,),
        body=json_body(JobTokenRequest, {"seconds": 600}, required=False),
    ),
)
async def create_job_token(request: Request) -> Response:
    """Returns a token for `GET` of the job, with or without `wait`, and of its events; a key with the scope submit may
    make one, too. It is not stored, can't be prolonged, and ends with its key.
    """
    key, context = await authorize(request, "read", "submit"), context_of(request)
    query_params(request)
    longest = context.settings.job_token_seconds
    asked_for = validate(JobTokenRequest, await read_optional_json(request, context.settings.body_limit)).seconds
    if asked_for is not None and asked_for > longest:
        rows = [fault("/seconds", f"must be at most {longest} (VIGIL_JOB_TOKEN_SECONDS)", "less_than_equal")]
        raise Problem(422, "validation_error", "Some fields can't be used as sent.", rows)
    stored = await load_own_job(request, key)
    token, expires_at = await with_deadline(
        request, context.job_tokens.create(stored.job.id, key, asked_for or longest)
    )
    made: JobTokenView = {"token": token, "expires_at": expires_at}
    return json_response(made)
