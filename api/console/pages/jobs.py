"""Jobs: the app's jobs, newest first, with the filters of GET /v1/jobs in the address."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from api.console.console_routes import ConsoleRoutes, Done
from api.console.page_response import Page
from api.console.shown_job import without_content
from api.console.visit import Visit
from api.jobs.submission import identifier
from api.runtime.store_deadline import with_deadline
from api.web.problems import Problem
from api.web.responses import view_jobs
from worker.jobs import ids
from worker.jobs.states import Status
from worker.store.jobs.list_filters import ListFilters

routes = ConsoleRoutes()
_PAGE: Final = 50
_FILTERS: Final = ("status", "model", "end_user")


@routes.page("/jobs")
async def show_jobs(visit: Visit) -> Page | Done:
    """Show a page of the jobs that fit the filters; lead to the job whose id was typed."""
    request, context = visit.request, visit.context
    sought = visit.query.get("id", "").strip()
    if sought:
        job_id = ids.job_id_of(sought)
        if not ids.is_job_id(job_id):
            raise Problem(404, "job_not_found", "This is no id of a job or of a response of this Vigil.")
        return Done(f"/jobs/{job_id}")
    given = {name: visit.query[name] for name in _FILTERS if visit.query.get(name)}
    status = next((one for one in Status if one == given.get("status")), None)
    end_user = await with_deadline(request, identifier(context, visit.key.app, given.get("end_user")))
    filters = ListFilters(statuses=(status,) if status else (), model=given.get("model"), safety_identifier=end_user)
    found, cursor = await with_deadline(
        request, context.job_access.page(visit.key.app, filters, _PAGE, visit.query.get("cursor"))
    )

    def link(**changes: str | None) -> str:
        query = {name: value for name, value in (given | changes).items() if value}
        return visit.url("/jobs") + (f"?{urlencode(query)}" if query else "")

    values = {
        "jobs": [without_content(view) for view in await view_jobs(request, found)],
        "next_cursor": cursor,
        "filters": {name: given.get(name) for name in _FILTERS},
        "filtered": bool(given) or "cursor" in visit.query,
        "statuses": list(Status),
        "link": link,
    }
    return Page("jobs.html", values)
