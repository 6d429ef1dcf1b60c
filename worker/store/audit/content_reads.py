"""Record in the audit trail which person was shown content of a job, before it is shown, and list these records.

Whoever looks again within ten minutes adds no second record, so a page that is reloaded does not fill the trail.
The records themselves are the proof; the list of them by app is only the way to find them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow
from worker.clock import Clock
from worker.store import keys
from worker.store.audit.acts import Actor
from worker.store.audit.trail import Trail
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.errors import store_errors

ContentKind = Literal["prompt", "output", "packet"]
CONTENT_READ: Final = "content.read"
WINDOW_S: Final = 600
"""For so many seconds a look of one session at one kind of content of a job counts as the same look."""
MAX_LISTED: Final = 10_000
"""The records of an app that are listed; older ones are in the trail alone."""


@dataclass(frozen=True, slots=True)
class ContentRead:
    """One look at content: when, by which key of whom, in which session of the console, at what of which job."""

    at: str
    job_id: str
    kind: str
    by: str
    session: str
    person: str = ""


class ContentReads:
    """The records of looks at content, in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._trail = redis, Trail(redis, clock)

    async def record(self, app: str, job_id: str, kind: ContentKind, actor: Actor, session: str = "") -> bool:
        """Record that this key is about to see the content; return False if it is recorded already.

        `session`: of the console, a name of it that is no secret. Raises Refused when the job has no trail: then
        nothing must be shown.
        """
        mark = keys.read_mark(hashlib.sha256(f"{session or actor.by}\0{job_id}\0{kind}".encode()).hexdigest())
        async with store_errors("look for a record of the trail", mark):
            if await self._redis.exists(mark):
                return False
        data = {"kind": kind, **({"session": session} if session else {}), **actor.noted()}
        row = await self._trail.note(CONTENT_READ, app=app, job_id=job_id, by=actor.by, why="", **data)
        listed = keys.content_reads(app)
        await set_aside_wrong_types(self._redis, {listed: "list"})
        async with store_errors("list a record of the trail", listed), self._redis.pipeline(transaction=True) as pipe:
            pipe.set(mark, "1", ex=WINDOW_S)
            pipe.lpush(listed, row.id)
            pipe.ltrim(listed, 0, MAX_LISTED - 1)
            await pipe.execute()
        return True

    async def of_app(self, app: str, limit: int, offset: int = 0) -> list[ContentRead]:
        """Return up to `limit` looks at the app's content, newest first; without those that retention has removed."""
        listed = keys.content_reads(app)
        await set_aside_wrong_types(self._redis, {listed: "list"})
        async with store_errors("list records of the trail", listed):
            places = await self._redis.lrange(listed, offset, offset + limit - 1)
        rows = await self._trail.records_at([place.decode(errors="replace") for place in places])
        return list(_reads(rows, app))


def _reads(rows: Iterable[AuditRow], app: str) -> Iterable[ContentRead]:
    for row in rows:
        try:
            body: dict[str, Any] = json.loads(row.record)
            if body["type"] == CONTENT_READ and body["app"] == app:
                data = body["data"]
                whose = (data["by"], data.get("session", ""), data.get("by_person", ""))
                found = (body["at"], body["job_id"], data["kind"], *whose)
                yield ContentRead(*(str(one) for one in found))
        except (ValueError, LookupError, TypeError, RecursionError):
            continue  # the verification of the trail names it
