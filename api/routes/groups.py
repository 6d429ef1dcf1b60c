"""Groups of jobs: how many of each status there are."""

from __future__ import annotations

from typing import Final, cast

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.batch_responses import GroupCountsView, GroupView
from api.schema.documented_route import Routes
from api.schema.openapi import TEXT, operation
from api.web.auth import authorize
from api.web.params import base_url, query_params
from api.web.problems import Problem
from api.web.responses import json_response

routes = Routes("jobs")
_ID: Final = {"name": "group_id", "in": "path", "required": True, "schema": TEXT, "description": "The group's id."}


@routes.get(
    "/v1/groups/{group_id}",
    operation(
        "get_group",
        "Get how a group of jobs stands",
        {200: ("Its counts by status.", GroupView)},
        scope="read",
        problems=(404,),
        parameters=(_ID,),
    ),
)
async def group(request: Request) -> Response:
    """Returns how many jobs of each status there are; `GET /v1/jobs?group=` lists them. Kept as long as its jobs."""
    key, context = await authorize(request, "read"), context_of(request)
    query_params(request)
    found = await with_deadline(request, context.job_access.group(key.app, str(request.path_params["group_id"])))
    if found is None:
        raise Problem(404, "group_not_found", "There is no such group of jobs, or all of its jobs have expired.")
    base = f"{base_url(request)}/v1"
    view: GroupView = {
        "id": found.id,
        "object": "group",
        "created_at": found.created_at,
        "ended_at": found.ended_at,
        "total": found.total,
        "open": found.open,
        "counts": cast("GroupCountsView", dict(found.counts)),
        "urls": {"self": f"{base}/groups/{found.id}", "jobs": f"{base}/jobs?group={found.id}"},
    }
    return json_response(view)
