"""Record in the audit trail what people do beside the life of a job: keys, limits, retention, exports, rotations.

A record says who, when, what and why, and holds no secret and no content. An act that concerns an app is in the app's
chain, where its auditors find it; one that concerns the whole deployment is in a chain of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow
from worker.clock import Clock
from worker.store.audit.trail import Trail

DEPLOYMENT: Final = "vigil:deployment"
"""In the place of the app: no app has a name with a colon."""
KEY_CREATED: Final = "key.created"
KEY_REVOKED: Final = "key.revoked"
APP_CHANGED: Final = "app.changed"
EXPORTED: Final = "audit.exported"
ROTATED: Final = "encryption.rotated"
SEALED: Final = "store.sealed"
ACCEPTED: Final = "store.accepted"
MIGRATED: Final = "store.migrated"
Via = Literal["http", "console", "cli"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `by`: an API key's id or, at the command line, a login; `person`: whose key it is ("" = not stated)."""

    by: str
    person: str = ""
    via: Via = "http"

    def noted(self) -> dict[str, str]:
        """Return what a record holds of the actor beside `by`."""
        return {"via": self.via, **({"by_person": self.person} if self.person else {})}


class Acts:
    """Writes the records of what one actor does."""

    def __init__(self, redis: ArqRedis, clock: Clock, actor: Actor) -> None:
        self._trail, self.actor = Trail(redis, clock), actor

    async def record(self, act: str, *, app: str = DEPLOYMENT, why: str = "", **data: Any) -> AuditRow:
        """Append the record of an act on an app, or on the deployment; call it before the change is made."""
        noted = {**data, **self.actor.noted()}
        return await self._trail.note(act, app=app, job_id=None, by=self.actor.by, why=why, **noted)
