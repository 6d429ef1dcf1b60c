"""Job: everything about one job on one page, live while it runs, and what can be done about it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from api.console.console_routes import ConsoleRoutes, Done
from api.console.page_response import Page
from api.console.shown_job import ShownJob, live_job
from api.console.timeline import timeline_of
from api.console.visit import Form, Visit
from api.jobs.rerun import rerun
from api.runtime.store_deadline import with_deadline
from api.web.auth import load_own_job
from api.web.params import base_url
from api.web.problems import bad_field
from api.web.rate_limit_headers import meter_of
from api.web.tracing_middleware import trace_of
from worker.clock import to_ms
from worker.jobs.view_schema import CheckView

routes = ConsoleRoutes()
JOB: Final = "/jobs/{job_id}"
_REFRESH_S: Final = 2.0
_MAX_MESSAGES: Final = 200
_FORM_ID: Final = re.compile(r"[0-9a-f]{20}")
_FORM_ID_BYTES: Final = 10
_REDRAW_MS: Final = 5_000
"""How often the bars of a running job are drawn anew while nothing happens to it."""


@routes.page(JOB)
async def show_job(visit: Visit) -> Page:
    """Show the job."""
    found = await live_job(visit)
    shown, version, now = found.value, found.version, visit.context.clock.now()
    if not shown.stored.job.settled:
        version = f"{version}.{to_ms(now) // _REDRAW_MS}"
    live = not shown.stored.job.settled or any(one["state"] == "pending" for one in shown.messages)
    form_id = visit.context.clock.random_bytes(_FORM_ID_BYTES).hex()
    values = {
        **job_values(shown, now),
        "form_id": form_id,
        "timeline": timeline_of(shown.view, shown.events, shown.messages, now),
    }
    return Page("job.html", values, version, _REFRESH_S if live else None)


def job_values(shown: ShownJob, now: datetime) -> dict[str, Any]:
    """Return the values that the pages of a job have in common."""
    job = shown.stored.job
    return {
        "job": shown.view,
        "settled": job.settled,
        "cancel_requested_at": job.cancel_requested_at,
        "policy": job.policy.model_dump(mode="json"),
        "silence_is_measured": job.silence_is_measured,
        "safety_identifier": job.safety_identifier,
        "key_id": job.key_id,
        "may_rerun": shown.may_rerun,
        "not_rerun": shown.not_rerun,
        "messages": shown.messages[-_MAX_MESSAGES:],
        "message_count": len(shown.messages),
        "checked_seconds": sum(_seconds(check, now) for check in shown.view["safety"]["checks"]),
    }


def _seconds(check: CheckView, now: datetime) -> float:
    """Return how long the check lasted, or has lasted so far."""
    lasted = check["seconds"]
    return lasted if lasted is not None else max(0.0, (now - check["started_at"]).total_seconds())


@routes.action(f"{JOB}/cancel", "submit")
async def cancel_job(visit: Visit, _: Form) -> Done:
    """Cancel a waiting job, request a running one to stop."""
    request, control = visit.request, visit.context.job_control
    stored = await load_own_job(request, visit.key)
    path = f"/jobs/{stored.job.id}"
    if stored.job.settled:
        return Done(path, "already_settled")
    job, _under_way = await with_deadline(request, control.request_cancel(stored.job.id, visit.key.id))
    return Done(path, "cancelled" if job.settled else "cancel_requested")


@routes.action(f"{JOB}/rerun", "submit")
async def rerun_job(visit: Visit, form: Form) -> Done:
    """Run a failed, expired or cancelled job again, once however often the form is sent; lead to the new job."""
    request, context, form_id = visit.request, visit.context, form.text("form_id")
    if _FORM_ID.fullmatch(form_id) is None:
        raise bad_field("form_id", "The form is not one that this page sent.")
    key, old = await visit.key_with_limits(), await load_own_job(request, visit.key)
    trace, meter = trace_of(request.scope), meter_of(context.settings, key)
    running = rerun(context, key, old, trace, f"console-{form_id}/{old.job.id}", meter, base_url(request))
    stored, _ = await with_deadline(request, running)
    context.console.job_lists.forget(key.app)
    return Done(f"/jobs/{stored.job.id}", "run_again")


@routes.action(f"{JOB}/accept-offer", "submit")
async def accept_offer(visit: Visit, form: Form) -> Done:
    """Continue the job on the offered model."""
    stored = await load_own_job(visit.request, visit.key)
    accepting = visit.context.job_control.accept_offer(stored.job.id, form.text("model") or None, visit.key.id)
    await with_deadline(visit.request, accepting)
    return Done(f"/jobs/{stored.job.id}", "offer_accepted")
