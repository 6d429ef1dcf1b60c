"""Reports over HTTP: what safety cost, as JSON or CSV. An app reads its own, operators read all.

Read from counters that commits keep, so a report takes as long with a million jobs as with ten.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.submission import identifier
from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import INTEGER, TEXT, operation, parameter
from api.schema.report_responses import NOTES, SafetyReportView, row_view, totals_view
from api.web.auth import authorize
from api.web.header_fields import header_values
from api.web.params import base_url, integer_param, query_params
from api.web.problems import Problem, bad_parameter
from api.web.responses import json_response
from worker.safety.report_csv import csv_text
from worker.safety.report_weeks import BadWeek, weeks_between
from worker.store.apps import ApiKey
from worker.store.stats.loss_report import DIMENSIONS, Dimension, LossPage, LossQuery

routes = Routes("audit")
_PATH: Final = "/v1/reports/safety"
_MAX_ROWS: Final = 1_000
_MAX_END_USERS: Final = 100
_IDENTIFIER: Final = re.compile(r"[0-9a-f]{64}")
_OFFSET: Final = re.compile(r"[0-9]{1,6}")
_CSV: Final = "text/csv"


@routes.get(
    _PATH,
    operation(
        "get_safety_report",
        "Get what safety cost: money, tokens and minutes of checks, blocks and substitutions",
        {200: ("The report; as CSV with `format=csv` or `Accept: text/csv`.", SafetyReportView)},
        scope="audit",
        parameters=(
            parameter("from", "The first week, as `2026-W45` or a day in it; by default three weeks before the last."),
            parameter("to", "The last week, included; by default the current one."),
            parameter(
                "group_by",
                "`app`, `week`, `model`, `end_user`, comma-separated. End users are those who lost most, first.",
                {**TEXT, "default": "week,model"},
            ),
            parameter("app", "Only this app; with the scope `ops` any, and by default all. Without: the key's own."),
            parameter("model", "Only jobs that asked for this model."),
            parameter("end_user", "Only jobs of this end user: the app's own id, or the safety identifier."),
            parameter("format", "`json` or `csv`.", {**TEXT, "enum": ["json", "csv"]}),
            parameter(
                "limit",
                f"Rows of a page; with `end_user` in `group_by`: end users, at most {_MAX_END_USERS}.",
                {**INTEGER, "minimum": 1, "maximum": _MAX_ROWS, "default": _MAX_END_USERS},
            ),
            parameter("cursor", "The next_cursor of the previous page."),
        ),
        headers=("Link",),
        csv=True,
    ),
)
async def get_safety_report(request: Request) -> Response:
    """Returns rows and sums. Needs the scope `audit`, or `ops`, which reads all apps."""
    key, context = await authorize(request, "audit", "ops"), context_of(request)
    params = query_params(request, "from", "to", "group_by", "app", "model", "end_user", "format", "limit", "cursor")
    wants_csv = _wants_csv(request, params)
    query = await _query(request, context, key, params)
    page = await with_deadline(request, context.loss_report.read(query))
    cursor = _cursor(query.offset + query.limit) if page.more else None
    view = _view(query, page, cursor)
    if not wants_csv:
        return json_response(view)
    name = f"safety-{query.weeks[0]}-{query.weeks[-1]}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    if cursor is not None:
        headers["Link"] = f'<{_next_url(request, cursor)}>; rel="next"'
    return Response(
        csv_text(query.group_by, view["data"], view["totals"]), media_type="text/csv; charset=utf-8", headers=headers
    )


def _view(query: LossQuery, page: LossPage, cursor: str | None) -> SafetyReportView:
    return {
        "object": "safety_report",
        "app": query.app,
        "first_week": query.weeks[0],
        "last_week": query.weeks[-1],
        "group_by": list(query.group_by),
        "currency": "USD",
        "data": [row_view(group, query.group_by, counts) for group, counts in page.rows],
        "rest": totals_view(page.rest),
        "totals": totals_view(page.totals),
        "notes": list(NOTES),
        "next_cursor": cursor,
    }


async def _query(request: Request, context: AppContext, key: ApiKey, params: dict[str, str]) -> LossQuery:
    app, end_user = _app(key, params), params.get("end_user")
    group_by = _group_by(params)
    if "end_user" in group_by and app is None and "app" not in group_by:
        group_by = ("app", *group_by)  # an end user is of one app
    if end_user is not None and _IDENTIFIER.fullmatch(end_user) is None:
        if app is None:
            raise bad_parameter("app", "Name the app whose own id of an end user this is.")
        end_user = await with_deadline(request, identifier(context, app, end_user))
    lists_end_users = "end_user" in group_by and end_user is None
    most = _MAX_END_USERS if lists_end_users else _MAX_ROWS
    return LossQuery(
        weeks=_weeks(context, params),
        app=app,
        group_by=group_by,
        model=params.get("model"),
        end_user=end_user,
        limit=integer_param("limit", params.get("limit"), _MAX_END_USERS, 1, most),
        offset=_offset(params),
    )


def _app(key: ApiKey, params: dict[str, str]) -> str | None:
    """Return the app that is asked for, None for all; raise a Problem (403) if the key may not read it."""
    if "ops" in key.scopes:
        return params.get("app")
    if params.get("app", key.app) != key.app:
        headers = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="ops"'}
        detail = "A key without the scope ops reads the report of its own app alone."
        raise Problem(403, "insufficient_scope", detail, headers=headers)
    return key.app


def _group_by(params: dict[str, str]) -> tuple[Dimension, ...]:
    names = params.get("group_by", "week,model").split(",")
    if unknown := [name for name in names if name not in DIMENSIONS]:
        detail = f"{unknown[0][:64]!r} is none of {', '.join(DIMENSIONS)}."
        raise bad_parameter("group_by", f"group_by takes names, comma-separated: {detail}")
    if len(set(names)) != len(names):
        raise bad_parameter("group_by", "group_by names the same twice.")
    return tuple(name for name in DIMENSIONS if name in names)


def _weeks(context: AppContext, params: dict[str, str]) -> Sequence[str]:
    try:
        return weeks_between(context.clock.now().date(), params.get("from"), params.get("to"))
    except BadWeek as error:
        raise bad_parameter(error.name, f"{error}.") from None


def _wants_csv(request: Request, params: dict[str, str]) -> bool:
    """Return whether CSV is asked for; the parameter counts before the header."""
    sent = params.get("format")
    if sent not in (None, "json", "csv"):
        raise bad_parameter("format", "format must be json or csv.")
    accepted = ",".join(header_values(request.scope, b"accept"))
    return sent == "csv" if sent else _CSV in accepted and "application/json" not in accepted


def _next_url(request: Request, cursor: str) -> str:
    pairs = [(name, value) for name, value in request.query_params.items() if name != "cursor"]
    return f"{base_url(request)}{_PATH}?{urlencode([*pairs, ('cursor', cursor)])}"


def _cursor(offset: int) -> str:
    return base64.urlsafe_b64encode(str(offset).encode()).decode().rstrip("=")


def _offset(params: dict[str, str]) -> int:
    cursor = params.get("cursor")
    if cursor is None:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    if _OFFSET.fullmatch(text) is None:
        raise Problem(422, "invalid_cursor", "This cursor is not from a report; start without one.")
    return int(text)
