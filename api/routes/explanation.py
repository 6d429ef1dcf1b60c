"""GET /v1/jobs/{id}/why: what became of a job, in one paragraph."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import context_of
from api.schema.documented_route import Routes
from api.schema.openapi import JOB, JOB_ID, operation
from api.web.auth import authorize, load_own_job
from api.web.params import query_params
from api.web.responses import json_response, waiting_for
from worker.safety.explanation import ExplanationView, explain

routes = Routes("jobs")


@routes.get(
    f"{JOB}/why",
    operation(
        "explain_job",
        "Say what became of a job",
        {200: ("One paragraph for a person, and its sentences.", ExplanationView)},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID,),
    ),
)
async def why(request: Request) -> Response:
    """Returns what happened, of which model, how long, which checks, why another model served, the cost, what to do.

    It holds neither prompt nor output.
    """
    key = await authorize(request, "read")
    query_params(request)
    stored = await load_own_job(request, key)
    now = context_of(request).clock.now()
    return json_response(explain(stored.job, now, waiting_for(stored, now)))
