"""Job: everything about one job on one page, live while it runs, and what can be done about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from api.console.console_routes import ConsoleRoutes, Done
from api.console.page_response import Page
from api.console.shown_job import ShownJob, live_job
from api.console.timeline import timeline_of
from api.console.visit import Form, Visit
from api.runtime.store_deadline import with_deadline
from api.web.auth import load_own_job
from worker.clock import to_ms
from worker.jobs.view_schema import CheckView

routes = ConsoleRoutes()
JOB: Final = "/jobs/{job_id}"
_REFRESH_S: Final = 2.0
_MAX_MESSAGES: Final = 200
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
    values = {**job_values(shown, now), "timeline": timeline_of(shown.view, shown.events, shown.messages, now)}
    return Page("job.html", values, version, _REFRESH_S if live else None)


def job_values(shown: ShownJob, now: datetime) -> dict[str, Any]:
    """Return the values that the pages of a job have in common."""
    job = shown.stored.job
    return {
        "job": shown.view,
        "settled": job.settled,
        "cancel_requested_at": job.cancel_requested_at,
        "policy": job.policy.model_dump(mode="json"),
        "safety_identifier": job.safety_identifier,
        "key_id": job.key_id,
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


@routes.action(f"{JOB}/accept-offer", "submit")
async def accept_offer(visit: Visit, form: Form) -> Done:
    """Continue the job on the offered model."""
    stored = await load_own_job(visit.request, visit.key)
    accepting = visit.context.job_control.accept_offer(stored.job.id, form.text("model") or None, visit.key.id)
    await with_deadline(visit.request, accepting)
    return Done(f"/jobs/{stored.job.id}", "offer_accepted")
