"""An action on many jobs: counted and confirmed on one page, carried out in parts on the next, which adds them up.

Each part is a request of its own, so its scope, CSRF token and session are checked anew, and an action whose page is
closed stops after its part. What was done is not done again by a repeated part.
"""

from __future__ import annotations

import re
from typing import Any, Final, get_args

from api.console.action_progress import MAX_JOBS, ActionProgress, open_progress
from api.console.console_routes import ConsoleRoutes, Done
from api.console.job_query import LABELS, JobQuery
from api.console.page_response import Page
from api.console.visit import Form, Visit
from api.jobs.bulk_actions import ActionRequest, run_actions
from api.jobs.search import filter_of_query
from api.schema.requests import ActionName, JobActionsRequest
from api.schema.responses import JobActionsView
from api.web.auth import require_scope
from api.web.params import base_url
from api.web.problems import Problem, bad_field
from api.web.rate_limit_headers import meter_of
from api.web.validation import validate
from worker.clock import from_ms, to_ms
from worker.jobs import ids
from worker.jobs.timestamps import iso_utc

routes = ConsoleRoutes()
PART: Final = 100
"""On how many jobs a request acts at most, of those that match."""
MAX_SELECTED: Final = 200
_GO_ON_MS: Final = 60_000
"""A page that is opened later than this after its last part waits for a click before it goes on."""
_RUN_ID: Final = re.compile(r"[0-9a-f]{20}")
_RUN_ID_BYTES: Final = 10


@routes.page("/jobs/actions", "submit")
async def confirm_action(visit: Visit) -> Page | Done:
    """Show how many jobs the action is for, and what will happen to them."""
    sent = visit.request.query_params.multi_items()
    action, query = _action_of(visit.query.get("action", "")), JobQuery.of(sent)
    named: list[str] | None = _named(value for name, value in sent if name == "ids")
    which = visit.query.get("which")
    if which == "matching" or (which != "selected" and not named):
        named = None
    if named == []:
        return Done(query.address(), "nothing_selected")
    query = _fixed(visit, query)
    counted = await _run(visit, action, query, named, dry_run=True)
    values = {
        "action": action,
        "named": named,
        "query": query,
        "labels": LABELS,
        "matched": counted["matched"] or 0,
        "matched_all": counted["matched_all"],
        "most": MAX_JOBS,
        "back": JobQuery.of(sent).address(),
        "run_id": visit.context.clock.random_bytes(_RUN_ID_BYTES).hex(),
    }
    return Page("job_actions.html", values)


@routes.action("/jobs/actions", "submit")
async def begin_action(visit: Visit, form: Form) -> Done:
    """Act on the selected jobs, or on the first part of those that match."""
    action, run_id = _action_of(form.text("action")), form.text("run_id")
    if _RUN_ID.fullmatch(run_id) is None:
        raise bad_field("run_id", "The form is not one that this page sent.")
    query, named = JobQuery.of(form.pairs), _named(form.all("ids")) or None
    counted = await _run(visit, action, query, named, dry_run=True)
    now = to_ms(visit.context.clock.now())
    progress = ActionProgress(
        id=run_id,
        action=action,
        filters=() if named else query.pairs,
        matched=len(named) if named else min(MAX_JOBS, counted["matched"] or 0),
        matched_all=counted["matched_all"],
        started_ms=now,
        at_ms=now,
    )
    return await _next_part(visit, progress, query, named)


@routes.action("/jobs/actions/continue", "submit")
async def continue_action(visit: Visit, form: Form) -> Done:
    """Act on the next part of the jobs that match."""
    progress = _progress_of(visit, form.text("progress"))
    if progress.ended:
        return _result(visit, progress)
    return await _next_part(visit, progress, JobQuery(progress.filters), None)


@routes.page("/jobs/actions/result", "submit")
async def show_result(visit: Visit) -> Page:
    """Show the outcomes so far; the page of an action that is not over goes on with it."""
    sealed = visit.query.get("progress", "")
    progress = _progress_of(visit, sealed)
    is_fresh = to_ms(visit.context.clock.now()) - progress.at_ms < _GO_ON_MS
    query, started_at = JobQuery(progress.filters), from_ms(progress.started_ms)
    values: dict[str, Any] = {
        "progress": progress,
        "sealed": sealed,
        "stopped": "stop" in visit.query,
        "goes_on": not progress.ended and is_fresh and "stop" not in visit.query,
        "started_at": started_at,
        "most": MAX_JOBS,
        "query": query,
        "labels": LABELS,
        "list_address": query.address(),
        "new_jobs_address": JobQuery.of([("created_after", iso_utc(started_at, "milliseconds"))]).address(),
    }
    return Page("job_actions_result.html", values)


async def _next_part(visit: Visit, progress: ActionProgress, query: JobQuery, named: list[str] | None) -> Done:
    left = MAX_JOBS - progress.handled
    part = await _run(
        visit, progress.action, query, named, cursor=progress.cursor, run_id=progress.id, most=min(PART, left)
    )
    visit.context.console.job_lists.forget(visit.key.app)
    return _result(visit, progress.after(part, to_ms(visit.context.clock.now())))


def _result(visit: Visit, progress: ActionProgress) -> Done:
    return Done(f"/jobs/actions/result?progress={progress.sealed(visit.session.csrf)}")


async def _run(
    visit: Visit,
    action: ActionName,
    query: JobQuery,
    named: list[str] | None,
    *,
    dry_run: bool = False,
    cursor: str | None = None,
    run_id: str = "",
    most: int = PART,
) -> JobActionsView:
    """Act on the named jobs, or on a part of those that match; or only count them."""
    wanted: dict[str, Any] = {"action": action, "dry_run": dry_run}
    if named is not None:
        wanted["ids"] = named
    else:
        require_scope(visit.key, "read")
        if not query:
            raise bad_field("filter", "Set a filter first: without one the action would be for every job of the app.")
        wanted |= {"filter": filter_of_query(query.params), "limit": most}
    if cursor is not None:
        wanted["cursor"] = cursor
    request, key = validate(JobActionsRequest, wanted), await visit.key_with_limits()
    idempotency_key = f"console-{run_id}" if run_id else None
    meter, base = meter_of(visit.context.settings, key), base_url(visit.request)
    return await run_actions(visit.context, ActionRequest(key, meter, base, {}, idempotency_key), request)


def _fixed(visit: Visit, query: JobQuery) -> JobQuery:
    """Return the filters for the jobs that there are now: none that comes after the count is acted on."""
    now = visit.context.clock.now()
    fixed = query.at(now)
    until = fixed.value("created_before")
    return fixed if until or not query else fixed.also(("created_before", iso_utc(now, "milliseconds")))


def _action_of(name: str) -> ActionName:
    found: ActionName | None = next((one for one in get_args(ActionName) if one == name), None)
    if found is None:
        raise bad_field("action", f"action must be one of {', '.join(get_args(ActionName))}.")
    return found


def _named(values: Any) -> list[str]:
    named = list(dict.fromkeys(ids.job_id_of(value.strip()) for value in values if value.strip()))
    if len(named) > MAX_SELECTED:
        raise bad_field("ids", f"Select at most {MAX_SELECTED} jobs, or act on all that match a filter.")
    return named


def _progress_of(visit: Visit, sealed: str) -> ActionProgress:
    found = open_progress(visit.session.csrf, sealed)
    if found is None:
        detail = (
            "This result belongs to another session, or to one that has ended. The audit trail has every action; begin "
            "again from the list to act on what is left: what was done is not done again."
        )
        raise Problem(410, "progress_unknown", detail)
    return found
