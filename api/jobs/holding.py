"""Place and lift legal holds on a job, an end user or all jobs of the key's app, for the routes and the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from api.jobs.acting import actor_of
from api.jobs.submission import identifier
from api.runtime.context import AppContext
from api.web.problems import Problem
from worker.audit.chain import app_chain
from worker.jobs import ids
from worker.jobs.errors import Refused
from worker.store.apps import ApiKey
from worker.store.audit.acts import Via
from worker.store.audit.hold_names import APP, end_user_hold, end_user_of

HoldScope = Literal["job", "app", "end_user"]
_NOT_HELD: Final = "not_held"


@dataclass(frozen=True, slots=True)
class Held:
    """A hold that was placed or lifted. `complete`: False while the expiry of what it keeps is still being changed."""

    name: str
    complete: bool


async def place_hold(
    context: AppContext, key: ApiKey, scope: HoldScope, name: str | None, why: str, via: Via = "http"
) -> Held:
    """Place a hold; it is in force when this returns. Raises Refused for one that is there, a Problem (404)."""
    named = (await _names(context, key, scope, name))[0]
    return Held(named, await context.audit_access.hold(named, actor_of(key, via), why))


async def lift_hold(
    context: AppContext, key: ApiKey, scope: HoldScope, name: str | None, why: str, via: Via = "http"
) -> Held:
    """Lift a hold; an end user is found by the safety identifier too. Raises Refused if there is none, a Problem."""
    first, *others = await _names(context, key, scope, name)
    for named in others:  # the app's own name of an end user comes first
        try:
            return Held(first, await context.audit_access.release(first, actor_of(key, via), why))
        except Refused as refused:
            if refused.code != _NOT_HELD:
                raise
            first = named
    return Held(first, await context.audit_access.release(first, actor_of(key, via), why))


async def _names(context: AppContext, key: ApiKey, scope: HoldScope, name: str | None) -> list[str]:
    """Return what a hold on this may be called; raise a Problem (404) for what is not the app's."""
    if scope == "end_user":
        person = await identifier(context, key.app, name) or ""
        return [end_user_hold(key.app, one) for one in (person, name or "")]
    if scope == "app":
        if name not in (None, key.app):
            raise Problem(404, "app_not_found", "A key holds its own app; send no name, or the name of that app.")
        return [app_chain(key.app)]
    job_id = ids.job_id_of(name or "")
    first = await context.trail.first_of_chain(job_id) if ids.is_job_id(job_id) else None
    if first is None or first.get("app") != key.app:
        raise Problem(404, "job_not_found", "This app has no such job in the audit trail.")
    return [job_id]


def scope_of(name: str) -> tuple[HoldScope, str]:
    """Return what a hold of this name keeps: (scope, job id, app or safety identifier)."""
    found = end_user_of(name)
    if found is not None:
        return "end_user", found[1]
    return ("app", name.removeprefix(APP)) if name.startswith(APP) else ("job", name)
