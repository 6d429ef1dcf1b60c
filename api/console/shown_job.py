"""A job as the console shows it: its view without content, its events and its webhook messages, read once for all who
look at it.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from starlette.requests import Request

from api.console.visit import Visit
from api.jobs.rerun import refusal_of
from api.jobs.webhook_messages import message_views
from api.runtime.context import context_of
from api.runtime.live_values import LiveValue
from api.runtime.store_deadline import with_deadline
from api.schema.responses import MessageView
from api.web.auth import load_own_job
from api.web.problems import not_found
from api.web.responses import view_jobs
from worker.jobs import ids
from worker.jobs.states import Status
from worker.jobs.view_schema import JobView
from worker.store.jobs.stored_job import StoredJob

_FRESH_S: Final = 1.0
"""How old the job may be on a page that is loaded anew."""
_STALE_S: Final = 15.0
"""How old on a page that is open, unless it changed: what has no event (a webhook's state, a notice, the place in the
queue) is read again then, when it is its turn among all open pages.
"""


class ShownJob(NamedTuple):
    """What a page shows of a job. `view` has no output, draft and refusal: content has its own scope.

    `may_rerun`: whether it may be run again; `not_rerun` says why not, if it has ended without an answer.
    """

    stored: StoredJob
    view: JobView
    events: list[dict[str, Any]]
    messages: list[MessageView]
    may_rerun: bool
    not_rerun: str


def without_content(view: JobView) -> JobView:
    """Return the view without what the model wrote."""
    shown = view.copy()
    shown["output_text"] = shown["draft"] = shown["refusal"] = None
    shown["output"] = []
    return shown


async def live_job(visit: Visit) -> LiveValue[ShownJob]:
    """Return the job of the path, as it is now; raise a Problem (404) unless it is the app's."""
    state, request = visit.context.console, visit.request
    job_id = ids.job_id_of(str(request.path_params["job_id"]))
    if not ids.is_job_id(job_id):
        raise not_found()
    name = f"job:{visit.key.app}:{job_id}:{state.jobs.last(job_id)}"  # a change makes it another value
    seconds = _FRESH_S
    if visit.is_live:
        stale = (state.live.age(name) or 0.0) > _STALE_S and state.jobs.take_turn()
        seconds = _STALE_S if stale else math.inf
    return await state.live.read(name, seconds, lambda: _load(visit))


async def _load(visit: Visit) -> ShownJob:
    request, context = visit.request, context_of(visit.request)
    stored = await load_own_job(request, visit.key)
    (view,) = await with_deadline(request, view_jobs(request, [stored]))  # also while its content can't be read
    view = without_content(view)
    events = await with_deadline(request, context.jobs.trail(stored.job.id, 0))
    messages = await _messages(request, stored)
    may_rerun, not_rerun = False, ""
    if stored.job.settled and stored.job.status is not Status.COMPLETED:
        refused = await with_deadline(request, refusal_of(context, stored.job))
        may_rerun, not_rerun = refused is None, str(refused or "")
    return ShownJob(stored, view, events, messages, may_rerun, not_rerun)


async def _messages(request: Request, stored: StoredJob) -> list[MessageView]:
    rows = await with_deadline(request, context_of(request).outbox.of_job(stored.job.id))
    return await message_views(request, stored, rows)
