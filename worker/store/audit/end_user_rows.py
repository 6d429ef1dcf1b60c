"""Say of records of the trail which end user's they are: only the first record of a job names its end user."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow
from worker.store import keys
from worker.store.audit.hold_names import end_user_of
from worker.store.audit.trail import Trail
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies


class EndUserRows:
    """Finds the end users of records. What it reads grows with the records that it is asked about."""

    def __init__(self, redis: ArqRedis, trail: Trail) -> None:
        self._redis, self._trail = redis, trail

    async def held(self, rows: Sequence[AuditRow], holds: Collection[str]) -> set[str]:
        """Return the ids of those records whose end user is under a legal hold, or may be: it is no longer known."""
        held = {found for name in holds if (found := end_user_of(name)) is not None}
        if not held:
            return set()
        apps = {app for app, _ in held}
        bodies = {row.id: body for row in rows if (body := body_of(row)) and body.get("app") in apps}
        known = await self.of_jobs({str(body["job_id"]) for body in bodies.values() if body.get("job_id")})
        out = set[str]()
        for place, body in bodies.items():
            job_id, app = body.get("job_id"), str(body["app"])
            person = person_of(body) if job_id is None else known.get(str(job_id), "")
            if (app, person) in held or (person == "" and job_id is not None):
                out.add(place)
        return out

    async def of_jobs(self, job_ids: Iterable[str]) -> dict[str, str | None]:
        """Return the end user of each job by its first record, None = it has none; no entry if that record is gone."""
        wanted = list(job_ids)
        if not wanted:
            return {}
        names = [keys.chain_records(job_id) for job_id in wanted]
        async with store_errors("read the audit trail"), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.lindex(name, 0)
            places = await pipeline_replies(pipe, names)
        rows = await self._trail.stored_at([place.decode(errors="replace") for place in places if place])
        first = [body for row in rows if (body := body_of(row)) and body.get("seq") == 1]
        found = {str(body["job_id"]): person_of(body) for body in first}
        for job_id in wanted:
            if job_id not in found:
                known, person = self._trail.archived_end_user(job_id)
                if known:
                    found[job_id] = person
        return found


def body_of(row: AuditRow) -> dict[str, Any] | None:
    """Return the record as a JSON value, or None if it is none: the verification of the trail names it."""
    try:
        body = json.loads(row.record)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def person_of(body: dict[str, Any]) -> str | None:
    """Return the safety identifier that a record names, or None."""
    data = body.get("data")
    found = data.get("safety_identifier") if isinstance(data, dict) else None
    return found if isinstance(found, str) else None
