"""What operators do: pause and resume. Scope `ops`.

That scope is the operators', not a tenant's: a pause of everything, of an app or of a model goes for the whole
deployment, whoever's key set it. End users are an app's own: one is named as the key's app names it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.submission import identifier, known
from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import ask
from api.schema.openapi import DirectRoute, json_body, operation
from api.schema.requests import AskPause, Target
from api.schema.responses import ref
from api.schema.views import pause_view
from api.web.auth import allowed
from api.web.body import read_json
from api.web.params import query
from api.web.problems import bad_field, from_validation
from api.web.responses import as_json
from worker.jobs.spec import Spec
from worker.store.admission.pauses import Kind, Pauses
from worker.store.apps import ApiKey
from worker.store.audit.trail import Trail

router = APIRouter(route_class=DirectRoute, tags=["ops"])
S = TypeVar("S", bound=Spec)


@router.post(
    "/v1/pause",
    **operation(
        "pause",
        "Start nothing more of everything, an app, a model or an end user",
        {200: ("The pause that stands now; what runs goes on.", "Pause")},
        scope="ops",
        body=json_body(ref("AskPause"), {"scope": "app", "name": "shop", "note": "Too many blocks: under review."}),
    ),
)
async def pause(request: Request) -> Response:
    """From the answer on nothing of it starts."""
    key, parts = await allowed(request, "ops"), parts_of(request)
    query(request)
    sent = await _read(request, AskPause)
    not_past(sent.until, parts)
    if sent.scope == "model":  # a name with a slip in it would pause nothing, and say nothing
        known(parts, [("/name", sent.name)])
    kind, name = await ask(request, _named(parts, key, sent))
    app = key.app if kind == "end_user" else None
    pauses = Pauses(parts.redis, parts.clock)
    made = await ask(request, pauses.pause(kind, name, by=key.id, note=sent.note, until=sent.until, app=app))
    await _note(request, "pause", key, made.scope, sent.note, until=sent.until and sent.until.isoformat())
    return as_json({**pause_view(made), "name": sent.name})


@router.post(
    "/v1/resume",
    **operation(
        "resume",
        "End a pause",
        {200: ("What it held falls due now; `resumed` is false when it was not paused.", "Resumed")},
        scope="ops",
        body=json_body(ref("Target"), {"scope": "app", "name": "shop"}),
    ),
)
async def resume(request: Request) -> Response:
    """Idempotent."""
    key, parts = await allowed(request, "ops"), parts_of(request)
    query(request)
    sent = await _read(request, Target)
    kind, name = await ask(request, _named(parts, key, sent))
    was, released = await ask(request, Pauses(parts.redis, parts.clock).resume(kind, name))
    if was:
        await _note(request, "resume", key, f"{kind}:{name}", "", released=released)
    return as_json({"scope": sent.scope, "name": sent.name, "resumed": was, "released": released})


async def _named(parts: AppContext, key: ApiKey, sent: Target) -> tuple[Kind, str]:
    """(scope, name) as the store knows them: an end user by the safety identifier."""
    if sent.scope != "end_user":
        return sent.scope, sent.name or ""
    return sent.scope, await identifier(parts, key.app, sent.name) or ""


async def _note(request: Request, act: str, key: ApiKey, scope: str, why: str, **data: object) -> None:
    """Who did what and why, in the audit trail of the key's app."""
    parts = parts_of(request)
    trail = Trail(parts.redis, parts.clock)
    await ask(request, trail.note(act, app=key.app, job_id=None, by=key.id, why=why, scope=scope, **data))


async def _read(request: Request, shape: type[S]) -> S:
    sent = await read_json(request, parts_of(request).settings.max_body_bytes)
    try:
        return shape.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error, sent) from None


def not_past(until: datetime | None, parts: AppContext) -> None:
    """422 for an end that has passed."""
    if until is not None and until <= parts.clock.now():
        raise bad_field("until", "until must be in the future.")
