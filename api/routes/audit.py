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

from api.jobs.submission import identifier
from api.runtime.context import context_of
from api.runtime.slices import Slices
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
from worker.store.apps import ApiKey
from worker.store.audit.trail_search import TrailFilter

routes = Routes("audit")
_TYPE: Final = re.compile(r"[a-z_]+(\.[a-z_]+)*(\.\*)?")
_MAX_TYPES: Final = 20
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{64}")
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
            parameter("type", "Of this type, such as `key.created`; several with commas, `key.*` for a family."),
            parameter("end_user", "Of this end user's jobs, and of acts on them: the app's id or safety identifier."),
            parameter("actor", "Acts by this key's id or person, or by the login of an operator."),
            LIMIT,
            parameter("cursor", "The next_cursor of the previous page."),
        ),
    ),
)
async def list_audit(request: Request) -> Response:
    """Returns a page of the app's records that fit; `next_cursor` is null at the end of the trail or of the time.

    One request reads a bounded part of the trail: where little fits, a page may have fewer records than its limit, or
    none, although `next_cursor` says that the search is not over.
    """
    key, context = await authorize(request, "audit"), context_of(request)
    params = query_params(request, "after", "before", "type", "end_user", "actor", "limit", "cursor")
    limit = integer_param("limit", params.get("limit"), 20, 1, 100)
    start, end = _start(params), _end(_time(params, "before"))
    wanted = TrailFilter(key.app, _types(params), await _person(request, key, params), params.get("actor"))
    searching = context.trail_search.page(wanted, start, end, limit, rest=Slices().rest)
    rows, last = await with_deadline(request, searching)
    page: AuditListView = {
        "object": "list",
        "data": [_view(row) for row in rows],
        "next_cursor": last and _cursor(last),
    }
    return json_response(page)


def _view(row: AuditRow) -> AuditRecordView:
    record: AuditRecordView = json.loads(row.record)
    return {**record, "hash": row.hash}


def _types(params: dict[str, str]) -> tuple[str, ...]:
    types = tuple(params["type"].split(",")) if "type" in params else ()
    if len(types) > _MAX_TYPES or not all(_TYPE.fullmatch(one) for one in types):
        raise bad_parameter("type", f"type takes up to {_MAX_TYPES} types such as key.created or key.*, with commas.")
    return types


async def _person(request: Request, key: ApiKey, params: dict[str, str]) -> str | None:
    """Return the safety identifier of the end user that the query names, or None."""
    named = params.get("end_user")
    if named is None or _IDENTIFIER.fullmatch(named):
        return named
    return await with_deadline(request, identifier(context_of(request), key.app, named))


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
