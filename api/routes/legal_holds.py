"""Legal holds on jobs, end users and all of the key's app: /v1/legal-holds."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.holding import Held, lift_hold, place_hold, scope_of
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.hold_schema import LegalHoldChangeView, LegalHoldListView, LegalHoldRequest, LegalHoldView
from api.schema.openapi import LIMIT, json_body, operation, parameter
from api.web.auth import authorize
from api.web.body import read_json
from api.web.params import integer_param, query_params
from api.web.problems import Problem
from api.web.responses import json_response
from api.web.validation import validate
from worker.store.apps import ApiKey

routes = Routes("audit")
_ALL: Final = "/v1/legal-holds"
_EXAMPLE: Final = {"scope": "end_user", "name": "user-17", "reason": "Case 2026-114: keep everything."}


@routes.get(
    _ALL,
    operation(
        "list_legal_holds",
        "List the legal holds of the app, oldest first",
        {200: ("A page.", LegalHoldListView)},
        scope="audit",
        parameters=(LIMIT, parameter("cursor", "The next_cursor of the previous page.")),
    ),
)
async def list_legal_holds(request: Request) -> Response:
    """Returns the holds on the app, its jobs and its end users. The scope `ops` will do, too."""
    key = await authorize(request, "audit", "ops")
    params = query_params(request, "limit", "cursor")
    limit = integer_param("limit", params.get("limit"), 20, 1, 100)
    rows = await with_deadline(request, context_of(request).audit_access.holds(key.app))
    start = _after(rows, params["cursor"]) if "cursor" in params else 0
    shown, more = rows[start : start + limit], len(rows) > start + limit
    page: LegalHoldListView = {
        "object": "list",
        "data": [_view(row) for row in shown],
        "next_cursor": _cursor(shown[-1]) if more else None,
    }
    return json_response(page)


@routes.post(
    _ALL,
    operation(
        "place_legal_hold",
        "Place a legal hold",
        {201: ("In force: nothing of it is removed from now on.", LegalHoldChangeView)},
        scope="ops",
        problems=(404, 409),
        body=json_body(LegalHoldRequest, _EXAMPLE),
    ),
)
async def place_legal_hold(request: Request) -> Response:
    """Keeps content and audit records of a job, of an end user or of the whole app, of jobs that come later, too.

    Their content can't be deleted meanwhile: 409 `legal_hold`. 409 `held_already` for a hold that is in force.
    """
    key, body = await _authorized_request(request)
    held = await with_deadline(request, place_hold(context_of(request), key, body.scope, body.name, body.reason))
    return json_response(await _changed(request, key, held, body.reason), 201)


@routes.post(
    f"{_ALL}/lift",
    operation(
        "lift_legal_hold",
        "Lift a legal hold",
        {200: ("The lifted hold; what it kept expires when it would have without it.", LegalHoldChangeView)},
        scope="ops",
        problems=(404,),
        body=json_body(LegalHoldRequest, _EXAMPLE | {"reason": "Case 2026-114 is closed."}),
    ),
)
async def lift_legal_hold(request: Request) -> Response:
    """Lifts a hold, with a reason. An end user is found by the safety identifier, too; 404 if there is no hold."""
    key, body = await _authorized_request(request)
    held = await with_deadline(request, lift_hold(context_of(request), key, body.scope, body.name, body.reason))
    return json_response(await _changed(request, key, held, body.reason))


async def _authorized_request(request: Request) -> tuple[ApiKey, LegalHoldRequest]:
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    return key, validate(LegalHoldRequest, await read_json(request, context.settings.body_limit))


async def _changed(request: Request, key: ApiKey, held: Held, reason: str) -> LegalHoldChangeView:
    now = context_of(request).clock.now()
    row = {"name": held.name, "reason": reason, "by": key.id, "person": key.person or None, "since": now}
    return {**_view(row), "complete": held.complete}


def _view(row: dict[str, Any]) -> LegalHoldView:
    scope, name = scope_of(row["name"])
    return {
        "object": "legal_hold",
        "scope": scope,
        "name": name,
        "reason": row["reason"],
        "by": row["by"],
        "person": row["person"],
        "since": _time(row["since"]),
    }


def _time(since: datetime | str) -> datetime | None:
    try:
        return since if isinstance(since, datetime) else datetime.fromisoformat(since)
    except ValueError:
        return None  # its note can't be read; the hold is in force


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return str(row["since"]), str(row["name"])


def _cursor(row: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode("\0".join(_place(row)).encode()).decode().rstrip("=")


def _after(rows: list[dict[str, Any]], cursor: str) -> int:
    """Return the index of the first row after the cursor."""
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
        since, name = text.split("\0")
    except (binascii.Error, ValueError):
        raise Problem(422, "invalid_cursor", "This cursor is not from a list; start without one.") from None
    return sum(_place(row) <= (since, name) for row in rows)
