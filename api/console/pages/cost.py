"""Cost of safety: what checks, blocks and substitutions took, by week and model, by end user; for operators by app."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api.console.console_routes import ConsoleRoutes
from api.console.page_response import HEADERS, Page
from api.console.visit import Visit, visit_of
from api.runtime.store_deadline import with_deadline
from api.schema.report_responses import NOTES, row_view, totals_view
from worker.safety.report_csv import csv_text
from worker.safety.report_weeks import weeks_between
from worker.store.stats.loss_report import Dimension, LossPage, LossQuery

routes = ConsoleRoutes()
_SPANS: Final = (4, 12, 26)
_BY_WEEK: Final[tuple[Dimension, ...]] = ("week", "model")
_MAX_ROWS: Final = 3_000  # 26 weeks of 101 models are fewer
_END_USERS: Final = 25


@routes.page("/cost", "audit")
async def show_cost(visit: Visit) -> Page:
    """Show the report of the app's last weeks, newest first; operators may see that of all apps."""
    weeks, app = _weeks(visit), _app(visit)
    by_week = await _read(visit, LossQuery(weeks, app, _BY_WEEK, limit=_MAX_ROWS))
    other: Dimension = "app" if app is None else "end_user"
    limit = _MAX_ROWS if app is None else _END_USERS
    by_other = await _read(visit, LossQuery(weeks, app, (other,), limit=limit))
    values = {
        "weeks": len(weeks),
        "spans": _SPANS,
        "all_apps": app is None,
        "by_week": list(reversed(_rows(by_week, _BY_WEEK))),
        "by_other": _rows(by_other, (other,)),
        "more": by_other.more,
        "rest": totals_view(by_other.rest),
        "totals": totals_view(by_week.totals),
        "notes": NOTES,
        "query": f"weeks={len(weeks)}" + ("&all=1" if app is None else ""),
    }
    return Page("cost.html", values)


async def cost_as_csv(request: Request) -> Response:
    """Return the table by week and model as CSV, with all its numbers."""
    visit = await visit_of(request, "audit")
    weeks = _weeks(visit)
    page = await _read(visit, LossQuery(weeks, _app(visit), _BY_WEEK, limit=_MAX_ROWS))
    name = f"safety-{weeks[0]}-{weeks[-1]}.csv"
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
    text = csv_text(_BY_WEEK, _rows(page, _BY_WEEK), totals_view(page.totals))
    return Response(text, 200, headers, media_type="text/csv; charset=utf-8")


routes.add("/cost/report.csv", cost_as_csv, "GET")


def _weeks(visit: Visit) -> Sequence[str]:
    """Return the last weeks: as many as the address asks for, if a page offers them."""
    wanted = visit.query.get("weeks", "")
    count = int(wanted) if wanted in map(str, _SPANS) else _SPANS[0]
    today = visit.context.clock.now().date()
    return weeks_between(today, (today - timedelta(weeks=count - 1)).isoformat(), None)


def _app(visit: Visit) -> str | None:
    return None if visit.may("ops") and visit.query.get("all") == "1" else visit.key.app


async def _read(visit: Visit, query: LossQuery) -> LossPage:
    return await with_deadline(visit.request, visit.context.loss_report.read(query))


def _rows(page: LossPage, group_by: Sequence[Dimension]) -> list[dict[str, Any]]:
    return [dict(row_view(group, group_by, counts)) for group, counts in page.rows]
