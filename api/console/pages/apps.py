"""Apps: what operators see of all apps: counts by status, and rows of jobs without content, metadata and end users."""

from __future__ import annotations

from typing import Any, Final

from api.console.console_routes import ConsoleRoutes
from api.console.page_response import Page
from api.console.visit import Visit
from api.runtime.partitions import partitions_of
from api.runtime.store_deadline import with_deadline
from api.web.problems import Problem
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.store.jobs.list_filters import ListFilters

routes = ConsoleRoutes()
_PAGE: Final = 50


@routes.page("/apps", "ops")
async def show_apps(visit: Visit) -> Page:
    """Show how many jobs each app has, by status."""
    found, count = await with_deadline(visit.request, visit.context.deployment.app_counts())
    rows = [{"app": one.app, "counts": one.by_status, "total": one.total} for one in found]
    return Page("apps.html", {"rows": rows, "statuses": list(Status), "hidden": count - len(rows)})


@routes.page("/apps/{app:path}", "ops")
async def show_app(visit: Visit) -> Page:
    """Show the newest jobs of an app, without content."""
    app = str(visit.request.path_params["app"])
    if app not in await with_deadline(visit.request, visit.context.deployment.app_names()):
        raise Problem(404, "app_not_found", "There is no app of this name.")
    context = await with_deadline(visit.request, partitions_of(visit.request).of_app(app))
    status, cursor = visit.query.get("status") or None, visit.query.get("cursor") or None
    if status is not None and status not in set(Status):
        raise Problem(422, "invalid_parameter", f"status must be one of {', '.join(Status)}.")
    listing = context.job_access.page(app, ListFilters(statuses=(status,) if status is not None else ()), _PAGE, cursor)
    found, following = await with_deadline(visit.request, listing)
    values = {
        "app": app,
        "rows": [_row(stored.job) for stored in found],
        "status": status,
        "statuses": list(Status),
        "next": following,
    }
    return Page("app.html", values)


def _row(job: Job) -> dict[str, Any]:
    """Return what of a job is neither content nor personal."""
    return {
        "id": job.id,
        "status": job.status.value,
        "reason": job.reason,
        "requested_model": job.requested_model,
        "served_model": job.served_model,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "attempts": len(job.attempts),
        "code": job.error.code if job.error is not None else (job.block.code if job.block is not None else None),
    }
