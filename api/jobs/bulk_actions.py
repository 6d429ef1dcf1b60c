"""Carries out one action on many jobs, each as the action on that job alone does, and says what became of each.

The work of a call is bounded, a few jobs at a time: other requests are served in between. What was done once is not
done again by a repeated call.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from api.jobs.acting import by_person
from api.jobs.redelivery import redeliver_undelivered
from api.jobs.rerun import rerun
from api.jobs.search import list_filters
from api.runtime.context import AppContext
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from api.schema.requests import ActionName, JobActionsRequest
from api.schema.responses import JobActionRowView, JobActionsView
from api.web.problems import Problem, not_found, problem_of
from worker.jobs import ids
from worker.jobs.errors import QueueFull, RateExceeded, StoreUnavailable, VigilError
from worker.jobs.states import TERMINAL, Status
from worker.safety.rerun import RERUNNABLE, refusal_of_unseen_rerun
from worker.store.admission.rate_limit import RateMeter
from worker.store.apps import ApiKey
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import cursor_of
from worker.store.jobs.stored_job import StoredJob

_AT_ONCE: Final = 8
_PAGE: Final = 100
_MAX_EMPTY_PAGES: Final = 5
"""Pages without a match that a call searches: each reads a bounded part of an index."""
_APPLY_TO: Final[dict[ActionName, tuple[Status, ...]]] = {
    "cancel": tuple(status for status in Status if status not in TERMINAL),
    "rerun": RERUNNABLE,
    "redeliver": (),
    "delete_content": tuple(status for status in Status if status in TERMINAL),
}
"""The statuses in which the action can have an effect; () = any."""
_STOP: Final = (StoreUnavailable, RateExceeded, QueueFull)
"""What would refuse the jobs that follow, too."""


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """Who asks for an action on many jobs, and what its new jobs need."""

    key: ApiKey
    meter: RateMeter
    base: str
    trace: dict[str, str]
    idempotency_key: str | None = None


async def run_actions(context: AppContext, caller: ActionRequest, wanted: JobActionsRequest) -> JobActionsView:
    """Do what is wanted to the app's jobs, or only count them; return an outcome for each job."""
    is_named = wanted.filter is None or wanted.filter.code is not None
    actions = _Actions(context, caller, wanted.action, is_named=is_named)
    if wanted.filter is None:
        names = list(dict.fromkeys(map(ids.job_id_of, wanted.ids or ())))
        if wanted.dry_run:
            return _view(wanted, (), matched=len(await actions.own(names)))
        await _record(context, caller.key, wanted)
        rows = await actions.run(names)
        return _view(wanted, rows)
    filters = await with_timeout(STORE_TIMEOUT_S, list_filters(context, caller.key.app, wanted.filter))
    if not filters.statuses:
        filters = replace(filters, statuses=tuple(str(status) for status in _APPLY_TO[wanted.action]))
    if wanted.dry_run:
        counting = context.job_access.count(caller.key.app, filters)
        matched, is_all = await with_timeout(STORE_TIMEOUT_S, counting)
        return _view(wanted, (), matched=matched, matched_all=is_all)
    await _record(context, caller.key, wanted)
    rows, cursor = await actions.run_filter(filters, wanted.limit, wanted.cursor)
    return _view(wanted, rows, cursor=cursor)


async def _record(context: AppContext, key: ApiKey, wanted: JobActionsRequest) -> None:
    """Record in the trail of the app who acts on how many jobs; each job's own trail has what became of it."""
    count = len(wanted.ids) if wanted.ids is not None else None
    fields = sorted(wanted.filter.model_fields_set) if wanted.filter is not None else None
    data = {"action": wanted.action, "jobs": count, "filter": fields, **by_person(key)}
    noting = context.trail.note("jobs.action", app=key.app, job_id=None, by=key.id, why="", **data)
    await with_timeout(STORE_TIMEOUT_S, noting)


def _view(
    wanted: JobActionsRequest,
    rows: Sequence[JobActionRowView],
    *,
    matched: int | None = None,
    matched_all: bool = True,
    cursor: str | None = None,
) -> JobActionsView:
    counts = Counter(row["outcome"] for row in rows)
    return {
        "object": "job_actions",
        "action": wanted.action,
        "dry_run": wanted.dry_run,
        "matched": matched,
        "matched_all": matched_all,
        "data": list(rows),
        "done": counts["done"],
        "unchanged": counts["unchanged"],
        "refused": counts["refused"],
        "next_cursor": cursor,
    }


class _Actions:
    """The action on some jobs after another. `stopped`: what refuses all that follow.

    `is_named`: the request names the jobs, or how they ended.
    """

    def __init__(self, context: AppContext, caller: ActionRequest, action: ActionName, *, is_named: bool) -> None:
        self._context, self._caller, self._action, self._is_named = context, caller, action, is_named
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.stopped: VigilError | None = None

    async def own(self, names: Sequence[str]) -> list[StoredJob]:
        """Return those of these jobs that are the app's."""
        out: list[StoredJob] = []
        for start in range(0, len(names), _AT_ONCE):
            loaded = await asyncio.gather(*map(self._load, names[start : start + _AT_ONCE]))
            out += [one for one in loaded if one is not None]
        return out

    async def run(self, names: Sequence[str]) -> list[JobActionRowView]:
        """Do it to each of these jobs; return the outcomes in the same order."""
        out: list[JobActionRowView] = []
        for start in range(0, len(names), _PAGE):
            out += await asyncio.gather(*(self._one(name, None) for name in names[start : start + _PAGE]))
            await asyncio.sleep(0)
        return out

    async def run_filter(
        self, filters: ListFilters, limit: int, cursor: str | None
    ) -> tuple[list[JobActionRowView], str | None]:
        """Do it to up to `limit` jobs that fit; return the outcomes, and the cursor to go on or None."""
        out: list[JobActionRowView] = []
        empty = 0
        while len(out) < limit and empty < _MAX_EMPTY_PAGES:
            size = min(_PAGE, limit - len(out))
            reading = self._context.job_access.page(self._caller.key.app, filters, size, cursor)
            page, following = await with_timeout(STORE_TIMEOUT_S, reading)
            empty += not page
            rows = await asyncio.gather(*(self._one(stored.job.id, stored) for stored in page))
            if self.stopped is not None:
                return self._until_stopped(out, rows, cursor)
            out, cursor = [*out, *rows], following
            if cursor is None:
                break
        return out, cursor

    def _until_stopped(
        self, out: list[JobActionRowView], rows: Sequence[JobActionRowView], cursor: str | None
    ) -> tuple[list[JobActionRowView], str | None]:
        """Return the outcomes up to the first one that stopped the rest, and the cursor from which to go on later."""
        first = next(n for n, row in enumerate(rows) if row["status"] in _STOPPING)
        kept = [*out, *rows[:first]]
        if not kept and self.stopped is not None:
            raise self.stopped
        return kept, cursor_of(kept[-1]["id"]) if kept else cursor

    async def _load(self, name: str) -> StoredJob | None:
        if not ids.is_job_id(name):
            return None
        stored = await with_timeout(STORE_TIMEOUT_S, self._context.jobs.load(name, locked=True))
        return stored if stored is not None and stored.job.app == self._caller.key.app else None

    async def _one(self, name: str, stored: StoredJob | None) -> JobActionRowView:
        async with self._slots:
            try:
                if self.stopped is not None:
                    raise self.stopped
                stored = stored or await self._load(name)
                if stored is None:
                    raise not_found()
                return await with_timeout(STORE_TIMEOUT_S, self._act(stored))
            except (Problem, VigilError) as error:
                if isinstance(error, _STOP):
                    self.stopped = error
                problem = problem_of(error)
                return {"id": name, "status": problem.status, "outcome": "refused", "problem": problem.body()}

    async def _act(self, stored: StoredJob) -> JobActionRowView:
        context, key, job = self._context, self._caller.key, stored.job
        match self._action:
            case "cancel":
                await context.job_control.request_cancel(job.id, key.id)
                is_stopped = job.settled or job.cancel_requested_at is not None
                return {"id": job.id, "status": 200, "outcome": "unchanged" if is_stopped else "done"}
            case "delete_content":
                await context.job_access.erase(stored, key.id)
                return {"id": job.id, "status": 204, "outcome": "unchanged" if job.content_removed else "done"}
            case "redeliver":
                sent = await redeliver_undelivered(context, stored)
                return {"id": job.id, "status": 202, "outcome": "done" if sent else "unchanged", "messages": sent}
            case "rerun":
                caller = self._caller
                unseen = None if self._is_named else refusal_of_unseen_rerun(job)
                if unseen is not None:
                    raise unseen
                idem = f"{caller.idempotency_key or _REPEATED}/{job.id}"
                new, replayed = await rerun(context, key, stored, caller.trace, idem, caller.meter, caller.base)
                outcome: JobActionRowView = {"id": job.id, "status": 202, "outcome": "done", "new_job": new.job.id}
                return {**outcome, "outcome": "unchanged"} if replayed else outcome


_REPEATED: Final = "vigil-actions-rerun"
"""Begins the idempotency keys of reruns of a call without one: a repeated call runs no job again twice."""
_STOPPING: Final = frozenset({429, 503})
