"""Search the audit trail by app, type, end user and actor, in a bounded part of it per call.

There is no index: the trail is written by every commit and read seldom. A call reads a few small pages, with a pause
after each, and returns where to go on, so a search that finds nothing blocks neither Redis nor the process.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow
from worker.clock import Clock
from worker.store.audit.end_user_rows import EndUserRows, body_of, person_of
from worker.store.audit.trail import Trail, record_prefix

_PAGE: Final = 250
_MAX_READ: Final = 10_000
_TYPE: Final = b',"type":"'
_FAMILY: Final = ".*"
Rest = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TrailFilter:
    """Which records are wanted: those that fit all of this.

    `types`: any of these; `key.*` means each that begins so. `end_user`: the safety identifier of the app's end user,
    for the records of their jobs and of acts on them. `actor`: acts by this key's id, person or login.
    """

    app: str | None = None
    types: tuple[str, ...] = ()
    end_user: str | None = None
    actor: str | None = None

    @property
    def is_narrow(self) -> bool:
        """Return whether it selects single records, not whole chains of an app."""
        return bool(self.types or self.end_user or self.actor)


async def _no_rest() -> None:
    return


class TrailSearch:
    """Searches the trail in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._trail, self._clock = Trail(redis, clock), clock
        self._end_users = EndUserRows(redis, self._trail)

    async def page(
        self, wanted: TrailFilter, low: str, high: str, limit: int, *, rest: Rest = _no_rest, seconds: float = 0.6
    ) -> tuple[list[AuditRow], str | None]:
        """Return up to `limit` records, oldest first, and the id after which the next page begins, or None.

        One call reads a bounded part of the trail, and no more than fits into `seconds`; so a page may be short, or
        empty, and yet have a next one. `rest` is called between its steps.
        """
        found, until = list[AuditRow](), self._clock.monotonic() + seconds
        size = max(_PAGE, limit + 1)
        for read in range(size, _MAX_READ + size, size):
            rows = await self._trail.page(low, high, size)
            for row in await self.select(rows, wanted):
                found.append(row)
                if len(found) > limit:
                    return found[:limit], found[limit - 1].id
            if len(rows) < size:
                return found, None
            low = f"({rows[-1].id}"
            if read >= _MAX_READ or self._clock.monotonic() >= until:
                break
            await rest()
        return found, low.removeprefix("(")

    async def select(self, rows: Sequence[AuditRow], wanted: TrailFilter) -> list[AuditRow]:
        """Return those of these records that are wanted."""
        if wanted.app is not None:
            prefix = record_prefix(wanted.app)
            rows = [row for row in rows if row.record.startswith(prefix)]
        if wanted.types:
            rows = [row for row in rows if _has_type(row.record, wanted.types)]
        if wanted.actor is not None:
            name = _json(wanted.actor)
            rows = [row for row in rows if name in row.record and _is_by(body_of(row) or {}, wanted.actor)]
        if wanted.end_user is not None:
            rows = await self._of_end_user(rows, wanted.end_user)
        return list(rows)

    async def _of_end_user(self, rows: Sequence[AuditRow], person: str) -> list[AuditRow]:
        bodies = {row.id: body for row in rows if (body := body_of(row)) is not None}
        jobs = {str(body["job_id"]) for body in bodies.values() if body.get("job_id")}
        of_jobs = await self._end_users.of_jobs(jobs)

        def fits(body: dict[str, Any]) -> bool:
            return person_of(body) == person or of_jobs.get(str(body.get("job_id"))) == person

        return [row for row in rows if row.id in bodies and fits(bodies[row.id])]


def _has_type(record: bytes, types: Sequence[str]) -> bool:
    """Return whether the record has one of these types: keys are sorted, and `type` is the last."""
    at = record.rfind(_TYPE)
    found = record[at + len(_TYPE) : -2].decode(errors="replace") if at >= 0 else ""
    return any(found.startswith(one.removesuffix("*")) if one.endswith(_FAMILY) else found == one for one in types)


def _is_by(body: dict[str, Any], who: str) -> bool:
    data, decision = body.get("data") or {}, body.get("decision") or {}
    return who in (data.get("by"), data.get("by_person"), decision.get("key_id"))


def _json(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
