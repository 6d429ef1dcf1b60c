"""Jobs: the app's jobs, newest first, with the filters of GET /v1/jobs in the address. The first page is live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from api.console.console_routes import ConsoleRoutes, Done
from api.console.job_query import LABELS, JobQuery, SearchText, read_search
from api.console.job_rows import JobRow, row_of
from api.console.page_response import Page
from api.console.visit import Visit
from api.jobs.search import filter_of_query, list_filters
from api.runtime.context import AppContext
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_deadline, with_timeout
from api.web.problems import Problem, problem_of
from worker.jobs.errors import Refused
from worker.jobs.states import Status
from worker.store.jobs.stored_job import StoredJob

routes = ConsoleRoutes()
PAGE: Final = 50
_UNPROCESSABLE: Final = 422
_AGES: Final = (("-1h", "last hour"), ("-24h", "last 24 hours"), ("-7d", "last 7 days"))


class JobList(NamedTuple):
    """A page of the list. `next_cursor`: there may be more."""

    rows: list[JobRow]
    next_cursor: str | None = None


@routes.page("/jobs")
async def show_jobs(visit: Visit) -> Page | Done:
    """Show a page of the jobs that fit the filters; with a text to search for, lead to the job or the filter."""
    sent = visit.request.query_params.multi_items()
    query, cursor = JobQuery.of(sent), visit.query.get("cursor") or None
    text = visit.query.get("q", "").strip()
    if text:
        return await _search(visit, query, text)
    if any(not value for name, value in sent if name in LABELS or name == "q"):
        return Done(query.address())  # a form sends its empty fields, too
    try:
        if cursor is not None:
            found = await _read(visit.context, visit.key.app, query, cursor)
            return _page(visit, query, found, cursor=cursor)
        name, seconds = visit.context.console.job_lists.use(visit.key.app, query.address())
        live = await visit.context.console.live.read(
            name, seconds, lambda: _read(visit.context, visit.key.app, query, None)
        )
        return _page(visit, query, live.value, version=live.version, refresh=seconds)
    except (Problem, Refused) as error:
        problem = problem_of(error)
        if problem.status != _UNPROCESSABLE:
            raise
        return _page(visit, query, JobList([]), fault=problem.detail)


async def _search(visit: Visit, query: JobQuery, text: str) -> Page | Done:
    """Lead to the job or the filter that the text stands for; offer what it may be where it does not say so."""
    catalogue = visit.context.catalogue
    meaning = read_search(text, {*catalogue.models, *catalogue.aliases})
    if meaning.job_id is not None:
        return Done(f"/jobs/{meaning.job_id}")
    if meaning.choices:
        return _page(visit, query, JobList([]), text=text, meaning=meaning)
    if not meaning.names_one:
        return Done(query.also(*meaning.filters).address())
    one = JobQuery(meaning.filters)
    found = await with_deadline(visit.request, _stored(visit.context, visit.key.app, one, None))
    return Done(f"/jobs/{found[0][0].job.id}" if len(found[0]) == 1 else one.address())


async def _read(context: AppContext, app: str, query: JobQuery, cursor: str | None) -> JobList:
    """Read a page by its two or three round trips; a shared one does not end with the request that began it."""
    found, following = await with_timeout(STORE_TIMEOUT_S, _stored(context, app, query, cursor))
    return JobList([row_of(stored) for stored in found], following)


async def _stored(
    context: AppContext, app: str, query: JobQuery, cursor: str | None
) -> tuple[Sequence[StoredJob], str | None]:
    wanted = filter_of_query(query.at(context.clock.now()).params)
    filters = await list_filters(context, app, wanted)
    return await context.job_access.page(app, filters, PAGE, cursor)


def _page(
    visit: Visit,
    query: JobQuery,
    found: JobList,
    *,
    cursor: str | None = None,
    version: str | None = None,
    refresh: float | None = None,
    text: str = "",
    meaning: SearchText | None = None,
    fault: str = "",
) -> Page:
    choices = [] if meaning is None else meaning.choices
    values: dict[str, Any] = {
        "rows": found.rows,
        "next_address": query.address(cursor=found.next_cursor) if found.next_cursor else None,
        "searched_on": len(found.rows) < PAGE and found.next_cursor is not None,
        "later_page": cursor is not None,
        "query": query,
        "statuses": [(str(one), query.toggled(one).address(), one in query.values("status")) for one in Status],
        "any_status": query.but(*(("status", one) for one in query.values("status"))).address(),
        "ages": [(label, query.also(("created_after", age)).address()) for age, label in _AGES],
        "labels": LABELS,
        "command": query.at(visit.context.clock.now()).command(),
        "models": list(visit.context.catalogue.models),
        "text": text,
        "choices": [(LABELS[name], query.also((name, text)).address()) for name in choices],
        "fault": fault,
    }
    return Page("jobs.html", values, version, refresh, _UNPROCESSABLE if fault else 200)
