"""The end users of the key's app whose jobs are not sent: review, shut out, let in again. Scope `ops`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.submission import identifier
from api.routes.pauses import not_past
from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import ask
from api.schema.openapi import DirectRoute, json_body, operation
from api.schema.requests import AskQuarantine
from api.schema.responses import TEXT, ref
from api.web.auth import allowed
from api.web.body import read_json
from api.web.params import query
from api.web.problems import Problem, from_validation
from api.web.responses import as_json
from worker.store.admission.quarantine import LEDGER_TTL_S, Quarantine, QuarantinedUser
from worker.store.apps import ApiKey
from worker.store.audit.trail import Trail

router = APIRouter(route_class=DirectRoute, tags=["ops"])
_ALL: Final = "/v1/quarantine"
_ONE: Final = _ALL + "/{end_user:path}"  # a name may hold a slash
_PERSON: Final = {
    "name": "end_user",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "The app's own id of the person, or the safety identifier.",
}


@router.get(
    _ALL,
    **operation("list_quarantine", "End users shut out", {200: ("Of the key's app.", "QuarantineList")}, scope="ops"),
)
async def review(request: Request) -> Response:
    """Newest first, with what the ledger counted within the window, and over all the time that it is kept."""
    key, parts = await allowed(request, "ops"), parts_of(request)
    query(request)
    quarantine = Quarantine(parts.redis, parts.clock)
    rows = [await _view(request, quarantine, one) for one in await ask(request, quarantine.of_app(key.app))]
    return as_json({"object": "list", "data": rows, "next_cursor": None})


@router.post(
    _ALL,
    **operation(
        "add_quarantine",
        "Shut an end user out",
        {200: ("New jobs are refused from now on, waiting ones are cancelled, running ones go on.", "Quarantined")},
        scope="ops",
        body=json_body(ref("AskQuarantine"), {"end_user": "user-17", "reason": "Reported by the abuse team."}),
    ),
)
async def add(request: Request) -> Response:
    """In force when this answers."""
    key, parts = await allowed(request, "ops"), parts_of(request)
    query(request)
    sent = await read_json(request, parts.settings.max_body_bytes)
    try:
        asked = AskQuarantine.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error, sent) from None
    not_past(asked.until, parts)
    person = await ask(request, identifier(parts, key.app, asked.end_user)) or ""
    quarantine = Quarantine(parts.redis, parts.clock)
    given: dict[str, Any] = {"reason": asked.reason, "until": asked.until, "name": asked.end_user}
    made = await ask(request, quarantine.add(key.app, person, by=key.id, **given))
    await _note(request, key, "quarantine.added", person, asked.reason)
    return as_json(await _view(request, quarantine, made))


@router.get(
    _ONE,
    **operation(
        "get_quarantine",
        "Whether an end user is shut out",
        {200: ("Since when, until when and why.", "Quarantined")},
        scope="ops",
        problems=(404,),
        parameters=(_PERSON,),
    ),
)
async def look(request: Request) -> Response:
    """By the app's own id or by the safety identifier; 404 for anybody who isn't shut out."""
    key, parts = await allowed(request, "ops"), parts_of(request)
    query(request)
    quarantine = Quarantine(parts.redis, parts.clock)
    found = await _first(request, key, quarantine.find)
    return as_json(await _view(request, quarantine, found))


@router.delete(
    _ONE,
    **operation(
        "lift_quarantine",
        "Let an end user in again",
        {200: ("As it stood; the blocks so far no longer count.", "Quarantined")},
        scope="ops",
        problems=(404,),
        parameters=(_PERSON,),
    ),
)
async def lift(request: Request) -> Response:
    """By the app's own id or by the safety identifier; 404 for anybody who isn't shut out."""
    key, parts = await allowed(request, "ops"), parts_of(request)
    query(request)
    quarantine = Quarantine(parts.redis, parts.clock)
    found = await _first(request, key, quarantine.lift)
    await _note(request, key, "quarantine.lifted", found.safety_identifier, "")
    return as_json(await _view(request, quarantine, found))


async def _first(
    request: Request, key: ApiKey, does: Callable[[str, str], Awaitable[QuarantinedUser | None]]
) -> QuarantinedUser:
    """What `does` gives for whom the path means: the app's own id of the person, or the safety identifier; else 404."""
    named = str(request.path_params["end_user"])
    for person in (await ask(request, identifier(parts_of(request), key.app, named)) or "", named):
        found = await ask(request, does(key.app, person))
        if found is not None:
            return found
    raise Problem(404, "not_quarantined", "Nobody of this name is in quarantine.")


async def _view(request: Request, quarantine: Quarantine, one: QuarantinedUser) -> dict[str, Any]:
    window = parts_of(request).settings.quarantine_window_seconds
    counts = await ask(request, quarantine.counts(one.safety_identifier, window))
    ledger = await ask(request, quarantine.counts(one.safety_identifier, LEDGER_TTL_S))
    return {
        "end_user": one.name,
        "safety_identifier": one.safety_identifier,
        "source": one.source,
        "reason": one.reason,
        "since": _time(one.since_ms),
        "until": _time(one.until_ms) if one.until_ms else None,
        "by": one.by,
        "checks": counts["checks"],
        "blocks": counts["blocks"],
        "ledger": {"days": LEDGER_TTL_S // 86_400, **ledger},
    }


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


async def _note(request: Request, key: ApiKey, act: str, person: str, why: str) -> None:
    """Who did what and why, in the audit trail of the app."""
    parts: AppContext = parts_of(request)
    trail = Trail(parts.redis, parts.clock)
    await ask(request, trail.note(act, app=key.app, job_id=None, by=key.id, why=why, safety_identifier=person))
