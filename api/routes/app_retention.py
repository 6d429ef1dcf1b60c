"""How long what belongs to the key's app is kept: /v1/retention."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.acting import actor_of
from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import json_body, operation
from api.schema.retention_schema import RetentionRequest, RetentionTimeView, RetentionView
from api.web.auth import authorize
from api.web.body import read_json
from api.web.params import query_params
from api.web.responses import json_response
from api.web.validation import validate
from worker.store.admission.app_retention import AppRetention, Kind, bounds_of, effective

routes = Routes("ops")
_PATH: Final = "/v1/retention"
_WAIT_S: Final = 1.0


@routes.get(
    _PATH,
    operation(
        "get_retention",
        "Get how long what belongs to the app is kept",
        {200: ("What applies, and within which bounds.", RetentionView)},
        scope="read",
    ),
)
async def get_retention(request: Request) -> Response:
    """Returns the times of the key's app. The scopes `audit` and `ops` will do, too."""
    key, context = await authorize(request, "read", "audit", "ops"), context_of(request)
    query_params(request)
    own = await with_deadline(request, context.retention.own(key.app))
    return json_response(_view(context, key.app, own))


@routes.patch(
    _PATH,
    operation(
        "set_retention",
        "Set how long what belongs to the app is kept",
        {200: ("In force for new jobs, and applied to those that there are.", RetentionView)},
        scope="ops",
        body=json_body(RetentionRequest, {"result_seconds": 259_200, "prompt_seconds": 86_400}),
    ),
)
async def set_retention(request: Request) -> Response:
    """Sets the app's own times; null removes one. 422 `retention_out_of_bounds` outside of the deployment's bounds.

    Answers and prompts of earlier jobs expire by the new times; what is over by them is removed at once, unless a legal
    hold keeps it. It may be repeated.
    """
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = validate(RetentionRequest, await read_json(request, context.settings.body_limit))
    app = key.app
    before = await with_deadline(request, context.retention.own(app))
    sent: dict[str, int | None] = {name.removesuffix("_seconds"): getattr(body, name) for name in body.model_fields_set}
    own = replace(before, **sent)
    await with_deadline(request, context.retention.set(app, own, actor_of(key)))
    applied = await context.background.finished("retention", context.retention.apply(app, own), _WAIT_S)
    return json_response({**_view(context, app, own), "complete": applied})


def _view(context: AppContext, app: str, own: AppRetention) -> RetentionView:
    times, bounds = effective(own, context.settings), bounds_of(context.settings)

    def shown(kind: Kind) -> RetentionTimeView:
        limits = bounds[kind]
        return {"seconds": times[kind], "own": getattr(own, kind), "minimum": limits.least, "maximum": limits.most}

    return {"app": app, "result": shown("result"), "prompt": shown("prompt"), "audit": shown("audit")}
