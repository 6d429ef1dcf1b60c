"""The audit trail over HTTP: of one job, or of an app from any time on. Scope `audit`, own records only.

Records are returned as they are stored: a row without its `hash` is the record that was hashed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import JOB, JOB_ID, LIMIT, TIME, operation, parameter
from api.schema.requests import instant
from api.schema.responses import AuditListView, AuditRecordView
from api.web.auth import authorize, load_own_job
from api.web.params import integer_param, query_params
from api.web.problems import Problem, bad_parameter
from api.web.responses import json_response
from worker.audit.chain import AuditRow
from worker.clock import to_ms

routes = Routes("audit")
_ENTRY_ID: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")


@routes.get(
    f"{JOB}/audit",
    operation(
        "get_audit",
        "Get the audit trail of a job",
        {200: ("All records, in order, with their hashes.", AuditListView)},
        scope="audit",
        problems=(404,),
        parameters=(JOB_ID,),
    ),
)
async def get_audit(request: Request) -> Response:
    """Returns the job's records with their chain of hashes."""
    key, context = await authorize(request, "audit"), context_of(request)
    query_params(request)
    stored = await load_own_job(request, key)
    rows = await with_deadline(request, context.trail.of_chain(stored.job.id))
    page: AuditListView = {"object": "list", "data": [_view(row) for row in rows], "next_cursor": None}
    return json_response(page)


@routes.get(
    "/v1/audit",
    operation(
        "list_audit",
        "List the audit trail of the app, oldest first",
        {200: ("A page.", AuditListView)},
        scope="audit",
        parameters=(
            parameter("after", "Records from this time on.", TIME),
            parameter("before", "Records before this time.", TIME),
            LIMIT,
            parameter("cursor", "The next_cursor of the previous page."),
        ),
    ),
)
async def list_audit(request: Request) -> Response:
    """Returns a page of the app's records; `next_cursor` is null at the end of the trail or of the requested time."""
    key, context = await authorize(request, "audit"), context_of(request)
    params = query_params(request, "after", "before", "limit", "cursor")
    limit = integer_param("limit", params.get("limit"), 20, 1, 100)
    start, end = _start(params), _end(_time(params, "before"))
    rows, last = await with_deadline(request, context.trail.of_app(key.app, start, end, limit))
    page: AuditListView = {
        "object": "list",
        "data": [_view(row) for row in rows],
        "next_cursor": last and _cursor(last),
    }
    return json_response(page)


def _view(row: AuditRow) -> AuditRecordView:
    record: AuditRecordView = json.loads(row.record)
    return {**record, "hash": row.hash}


def _time(params: dict[str, str], name: str) -> datetime | None:
    try:
        return instant(params[name]) if name in params else None
    except ValueError as error:
        raise bad_parameter(name, f"{name} {error}.") from None


def _start(params: dict[str, str]) -> str:
    """Return the first entry of the stream to read: after the cursor, or at a time."""
    if "cursor" in params:
        return f"({_entry_id(params['cursor'])}"
    after = _time(params, "after")
    return "-" if after is None else str(max(0, to_ms(after)))


def _end(time: datetime | None) -> str:
    return "+" if time is None else f"{max(1, to_ms(time)) - 1}"  # 0 is no valid end of a stream


def _cursor(entry_id: str) -> str:
    return base64.urlsafe_b64encode(entry_id.encode()).decode().rstrip("=")


def _entry_id(cursor: str) -> str:
    try:
        entry_id = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        entry_id = ""
    if _ENTRY_ID.fullmatch(entry_id) is None:
        raise Problem(422, "invalid_cursor", "This cursor is not from a list; start without one.")
    return entry_id
