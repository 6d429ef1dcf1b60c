"""Appeals: the cases of the app, one with its steps, and the steps that may follow."""

from __future__ import annotations

import re
from typing import Final, cast, get_args

from api.console.console_routes import ConsoleRoutes, Done
from api.console.form_text import optional_text, required_text
from api.console.page_response import Page
from api.console.visit import Form, Visit
from api.jobs import appealing
from api.runtime.store_deadline import with_deadline
from api.web.problems import Problem
from worker.safety.appeals import MAX_TEXT, Appeal, AppealOutcome, AppealState
from worker.store.end_users.appeals import is_in

routes = ConsoleRoutes()
_PAGE: Final = 50
_MAX_NAME: Final = 200
_MAX_JOBS_TEXT: Final = 5_000
_SEPARATORS: Final = re.compile(r"[\s,]+")


@routes.page("/appeals", "ops")
async def show_appeals(visit: Visit) -> Page:
    """Show the app's appeals, newest first, or those in one state."""
    state, cursor = visit.query.get("state") or None, visit.query.get("cursor") or None
    if state is not None and state not in get_args(AppealState):
        raise Problem(422, "invalid_parameter", f"state must be one of {', '.join(get_args(AppealState))}.")
    states = [cast("AppealState", state)] if state is not None else []
    paging = visit.context.appeals.page(visit.key.app, ("", ""), is_in(states), _PAGE, cursor)
    found, following = await with_deadline(visit.request, paging)
    values = {
        "rows": found,
        "state": state,
        "states": get_args(AppealState),
        "next": following,
        "most_text": MAX_TEXT,
    }
    return Page("appeals.html", values)


@routes.page("/appeals/{appeal}", "ops")
async def show_appeal(visit: Visit) -> Page:
    """Show an appeal with its steps, the provider's notices about it, and forms for what may follow."""
    context = visit.context
    found = await with_deadline(visit.request, context.appeals.find(visit.key.app, _id(visit)))
    if found is None:
        raise Problem(404, "appeal_not_found", "This app has no such appeal.")
    notices = await with_deadline(visit.request, appealing.notices_of(context, found))
    values = {"appeal": found, "notices": notices, "may_follow": _may_follow(found), "most_text": MAX_TEXT}
    return Page("appeal.html", values)


@routes.action("/appeals/open", "ops")
async def open_appeal(visit: Visit, form: Form) -> Done:
    """Open an appeal of an end user, about jobs, or both."""
    end_user = optional_text(form, "end_user", _MAX_NAME) or None
    reason, case = required_text(form, "text", MAX_TEXT, lines=True), _case(form)
    opening = appealing.open_appeal(visit.context, visit.key, end_user, _jobs(form), reason, case)
    opened = await with_deadline(visit.request, opening)
    return Done(f"/appeals/{opened.id}", "appeal_opened")


@routes.action("/appeals/{appeal}/sent", "ops")
async def mark_sent(visit: Visit, form: Form) -> Done:
    """Record that the appeal was sent to the provider."""
    case, note = required_text(form, "case", _MAX_NAME), optional_text(form, "text", MAX_TEXT, lines=True)
    await with_deadline(visit.request, appealing.mark_sent(visit.context, visit.key, _id(visit), case, note))
    return _done(visit)


@routes.action("/appeals/{appeal}/answer", "ops")
async def record_answer(visit: Visit, form: Form) -> Done:
    """Record what the provider answered."""
    answer = required_text(form, "text", MAX_TEXT, lines=True)
    await with_deadline(visit.request, appealing.record_answer(visit.context, visit.key, _id(visit), answer))
    return _done(visit)


@routes.action("/appeals/{appeal}/outcome", "ops")
async def close(visit: Visit, form: Form) -> Done:
    """Close the appeal."""
    outcome, reason = form.text("outcome"), required_text(form, "reason", MAX_TEXT)
    if outcome not in get_args(AppealOutcome):
        raise Problem(422, "validation_error", f"outcome must be one of {', '.join(get_args(AppealOutcome))}.")
    closing = appealing.close(visit.context, visit.key, _id(visit), cast("AppealOutcome", outcome), reason)
    await with_deadline(visit.request, closing)
    return _done(visit)


@routes.action("/appeals/{appeal}/notes", "ops")
async def add_note(visit: Visit, form: Form) -> Done:
    """Keep a note on the appeal."""
    text = required_text(form, "text", MAX_TEXT, lines=True)
    await with_deadline(visit.request, appealing.add_note(visit.context, visit.key, _id(visit), text))
    return _done(visit)


@routes.action("/appeals/{appeal}/jobs", "ops")
async def link_jobs(visit: Visit, form: Form) -> Done:
    """Add links to jobs to the appeal."""
    jobs = _jobs(form)
    if not jobs:
        raise Problem(422, "validation_error", "Name at least one job, by its id.")
    await with_deadline(visit.request, appealing.link_jobs(visit.context, visit.key, _id(visit), jobs))
    return _done(visit)


def _id(visit: Visit) -> str:
    return str(visit.request.path_params["appeal"])


def _done(visit: Visit) -> Done:
    return Done(f"/appeals/{_id(visit)}", "appeal_step")


def _case(form: Form) -> str | None:
    return optional_text(form, "case", _MAX_NAME) or None


def _jobs(form: Form) -> list[str]:
    """Return the ids that stand in the form, between spaces, commas or lines."""
    text = optional_text(form, "jobs", _MAX_JOBS_TEXT, lines=True)
    return [part for part in _SEPARATORS.split(text) if part]


def _may_follow(appeal: Appeal) -> list[str]:
    """Return the steps and outcomes that the appeal's state allows."""
    return {
        "open": ["sent", "upheld", "overturned", "withdrawn"],
        "sent": ["answer", "withdrawn"],
        "answered": ["sent", "upheld", "overturned", "withdrawn"],
        "closed": list[str](),
    }[appeal.state]
