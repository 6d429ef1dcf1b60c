"""Lab: what each delay rule would have done to the app's newest jobs: waiting against substitution against cost."""

from __future__ import annotations

from typing import Any, Final

from api.console.console_routes import ConsoleRoutes, Done
from api.console.lab_chart import HIGH, WIDE, extra_per_thousand, plots
from api.console.page_response import Page
from api.console.visit import Form, Visit
from api.runtime.lab_runs import MAX_RECORDS, LabRun
from worker.jobs.catalogue import dollars
from worker.lab.model import PolicyResult

routes = ConsoleRoutes()
_REFRESH_S: Final = 1.0
_LEFT_OUT: Final = {
    "cut_short": "stopped before their own end",
    "failed": "failed",
    "unfinished": "still running",
    "not_started": "never started, or begun before what was read",
}
_FAILURES: Final = {
    "store_unavailable": "Redis could not be read. Try again.",
    "too_long": "It took longer than five minutes. `vigil lab --trail` has no limit.",
    "internal_error": "It failed with an internal error, which the log of this process has.",
}


@routes.page("/lab", "audit")
async def show_lab(visit: Visit) -> Page:
    """Show the newest replay; the first visitor starts one."""
    run = visit.context.lab_runs.start(visit.key.app)
    running = run.finished_at is None
    values = {
        "run": run,
        "running": running,
        "failure": _FAILURES.get(run.failure or ""),
        "left_out": [(number, _LEFT_OUT.get(why, why)) for why, number in run.left_out],
        "plots": plots(run.rows, run.today_row) if run.rows else [],
        "rows": _rows(run),
        "size": (WIDE, HIGH),
        "most": MAX_RECORDS,
    }
    version = f"{run.started_at.timestamp()}-{running}"
    return Page("lab.html", values, version if running else None, _REFRESH_S if running else None)


@routes.action("/lab/run", "audit")
async def run_again(visit: Visit, _: Form) -> Done:
    """Start another replay."""
    visit.context.lab_runs.start(visit.key.app, again=True)
    return Done("/lab")


def _rows(run: LabRun) -> list[dict[str, Any]]:
    today = [] if run.today_row is None else [_row(run.today_row, is_today=True)]
    return [*today, *(_row(one) for one in run.rows)]


def _row(row: PolicyResult, *, is_today: bool = False) -> dict[str, Any]:
    extra = extra_per_thousand(row)
    wasted = None if row.wasted is None else dollars(row.wasted / max(1, row.jobs) * 1000)
    return {
        "today": is_today,
        "action": row.action,
        "after": row.after_seconds,
        "wait_p50": row.wait_p50,
        "wait_p95": row.wait_p95,
        "settled_p95": row.settled_p95,
        "substituted": row.substituted,
        "offered": row.offered,
        "drafted": row.drafted,
        "blocked": row.blocked,
        "extra": None if extra is None else f"{extra:,.2f}",
        "wasted": None if wasted is None else f"{float(wasted):,.2f}",
    }
