"""The audit trail over HTTP: one job's, and an app's from any time on. Scope `audit`, own records only.

What is given is what is stored: whoever takes `hash` out of a row has the record that was hashed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import parts_of
from api.runtime.store_deadline import ask
from api.schema.openapi import JOB, JOB_ID, LIMIT, DirectRoute, operation, parameter
from api.schema.requests import instant
from api.schema.responses import TIME
from api.web.auth import allowed, own_job
from api.web.params import query, whole
from api.web.problems import Problem, bad_parameter
from api.web.responses import as_json
from worker.audit.chain import AuditRow
from worker.clock import to_ms
from worker.store.audit.trail import Trail

router = APIRouter(route_class=DirectRoute, tags=["audit"])
_PLACE: Final = re.compile(r"\d{1,15}-\d{1,15}")


@router.get(
    f"{JOB}/audit",
    **operation(
        "get_audit",
        "The audit trail of a job",
        {200: ("All records, in order, with their hashes.", "AuditList")},
        scope="audit",
        problems=(404,),
        parameters=(JOB_ID,),
    ),
)
async def of_job(request: Request) -> Response:
    """The job's records with their chain of hashes."""
    key, parts = await allowed(request, "audit"), parts_of(request)
    query(request)
    stored = await own_job(request, key)
    rows = await ask(request, Trail(parts.redis, parts.clock).of_chain(stored.job.id))
    return as_json({"object": "list", "data": [_shown(row) for row in rows], "next_cursor": None})


@router.get(
    "/v1/audit",
    **operation(
        "list_audit",
        "The audit trail of the app, oldest first",
        {200: ("A page.", "AuditList")},
        scope="audit",
        parameters=(
            parameter("after", "From this time on.", TIME),
            parameter("before", "Before this time.", TIME),
            LIMIT,
            parameter("cursor", "The next_cursor of the page before."),
        ),
    ),
)
async def of_app(request: Request) -> Response:
    """A page of the app's records; `next_cursor` is null at the end of the trail, or of the time asked for."""
    key, parts = await allowed(request, "audit"), parts_of(request)
    sent = query(request, "after", "before", "limit", "cursor")
    limit = whole("limit", sent.get("limit"), 20, 1, 100)
    low, high = _low(sent), _before(_time(sent, "before"))
    found, last = await ask(request, Trail(parts.redis, parts.clock).of_app(key.app, low, high, limit))
    return as_json({"object": "list", "data": [_shown(r) for r in found], "next_cursor": last and _cursor(last)})


def _shown(row: AuditRow) -> dict[str, Any]:
    return {**json.loads(row.record), "hash": row.hash}


def _time(sent: dict[str, str], name: str) -> datetime | None:
    try:
        return instant(sent[name]) if name in sent else None
    except ValueError as error:
        raise bad_parameter(name, f"{name} {error}.") from None


def _low(sent: dict[str, str]) -> str:
    """Where to begin: behind the cursor, or at a time."""
    if "cursor" in sent:
        return f"({_place(sent['cursor'])}"
    after = _time(sent, "after")
    return "-" if after is None else str(max(0, to_ms(after)))


def _before(time: datetime | None) -> str:
    return "+" if time is None else f"{max(1, to_ms(time)) - 1}"  # a stream knows no time before its first


def _cursor(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def _place(cursor: str) -> str:
    try:
        place = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        place = ""
    if _PLACE.fullmatch(place) is None:
        raise Problem(422, "invalid_cursor", "This cursor is not one that a list gave; start without it.")
    return place
