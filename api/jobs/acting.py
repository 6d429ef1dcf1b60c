"""Record in the audit trail what a key does beside the life of a job, with the person who has the key."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from worker.store.apps import ApiKey
from worker.store.audit.acts import Actor, Via


def actor_of(key: ApiKey, via: Via = "http") -> Actor:
    """Return who acts with this key."""
    return Actor(key.id, key.person, via)


def by_person(key: ApiKey) -> dict[str, str]:
    """Return what a record holds of the person who has the key, beside the key's id."""
    return {"by_person": key.person} if key.person else {}


async def record_act(request: Request, key: ApiKey, act: str, why: str = "", *, via: Via = "http", **data: Any) -> None:
    """Record an act in the trail of the key's app; call it before the change is made. `data` holds no content."""
    noting = context_of(request).trail.note(
        act, app=key.app, job_id=None, by=key.id, why=why, **data, **actor_of(key, via).noted()
    )
    await with_deadline(request, noting)
