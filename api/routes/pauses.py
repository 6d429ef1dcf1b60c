"""POST /v1/pause and /v1/resume. Scope `ops`.

That scope belongs to operators, not to tenants: a pause of everything, of an app or of a model is in force for the
whole deployment, whichever app's key set it. An end user belongs to the key's app, and is named by its own id.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.acting import record_act
from api.jobs.submission import identifier, require_future, require_known
from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import json_body, operation
from api.schema.requests import PauseRequest, PauseTarget
from api.schema.responses import PauseView, ResumeResultView
from api.schema.views import pause_view
from api.web.auth import authorize
from api.web.body import read_json
from api.web.params import query_params
from api.web.responses import json_response
from api.web.validation import validate
from worker.store.admission.pauses import Kind
from worker.store.apps import ApiKey

routes = Routes("ops")


@routes.post(
    "/v1/pause",
    operation(
        "pause",
        "Pause everything, an app, a model or an end user",
        {200: ("The pause that is now in force; running jobs continue.", PauseView)},
        scope="ops",
        body=json_body(PauseRequest, {"scope": "app", "name": "shop", "note": "Too many blocks: under review."}),
    ),
)
async def pause(request: Request) -> Response:
    """Pauses a scope. Nothing in it starts after the response is sent."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = validate(PauseRequest, await read_json(request, context.settings.body_limit))
    require_future(body.until, context)
    if body.scope == "model":  # a misspelt name would pause nothing, silently
        require_known(context, [("/name", body.name)])
    kind, name = await with_deadline(request, _stored_scope(context, key, body))
    app = key.app if kind == "end_user" else None
    pausing = context.pauses.pause(kind, name, by=key.id, note=body.note, until=body.until, app=app)
    made = await with_deadline(request, pausing)
    await _audit(request, "pause", key, made.scope, body.note, until=body.until and body.until.isoformat())
    shown: PauseView = {**pause_view(made), "name": body.name}
    return json_response(shown)


@routes.post(
    "/v1/resume",
    operation(
        "resume",
        "End a pause",
        {200: ("Held jobs are due now; `resumed` is false if it was not paused.", ResumeResultView)},
        scope="ops",
        body=json_body(PauseTarget, {"scope": "app", "name": "shop"}),
    ),
)
async def resume(request: Request) -> Response:
    """Ends a pause. Idempotent."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = validate(PauseTarget, await read_json(request, context.settings.body_limit))
    kind, name = await with_deadline(request, _stored_scope(context, key, body))
    resumed, released = await with_deadline(request, context.pauses.resume(kind, name))
    if resumed:
        await _audit(request, "resume", key, f"{kind}:{name}", "", released=released)
    result: ResumeResultView = {
        "scope": body.scope,
        "name": body.name,
        "resumed": resumed,
        "released": released,
    }
    return json_response(result)


async def _stored_scope(context: AppContext, key: ApiKey, body: PauseTarget) -> tuple[Kind, str]:
    """Return (scope, name) as the store has them: an end user by the safety identifier."""
    if body.scope != "end_user":
        return body.scope, body.name or ""
    return body.scope, await identifier(context, key.app, body.name) or ""


async def _audit(request: Request, action: str, key: ApiKey, scope: str, why: str, **data: Any) -> None:
    """Record in the audit trail of the key's app who did what and why."""
    await record_act(request, key, action, why, scope=scope, **data)
