"""Read the audit trail, by chain or from any id on, and append notes: records that are no events of a job.

The record of an event is written in the event's own commit (`jobs/commit_commands.py`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import GENESIS, AuditRow, app_chain, canonical, link
from worker.audit.record import note_record
from worker.clock import Clock
from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.audit.stream_records import row_of, stored_fields
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import writes_compact
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies

START: Final = "-"
_PLACE: Final = re.compile(r"[0-9]{1,15}-[0-9]{1,15}")
_PAGE: Final = 2_000
_MAX_TRIES: Final = 50


class Trail:
    """The audit trail in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._append_script: Any = script(redis, "audit/append_note")

    async def of_chain(self, chain: str) -> list[AuditRow]:
        """Return all records of a job (or of `app:<name>`), in order."""
        async with store_errors("read the audit trail", keys.chain_records(chain)):
            places = await self._redis.lrange(keys.chain_records(chain), 0, -1)
        return await self.records_at([place.decode(errors="replace") for place in places])

    async def first_of_chain(self, chain: str) -> dict[str, Any] | None:
        """Return the oldest record that is kept of a chain, or None if there is none that can be read."""
        async with store_errors("read the audit trail", keys.chain_records(chain)):
            place = await self._redis.lindex(keys.chain_records(chain), 0)
        rows = await self.records_at([place.decode(errors="replace")]) if place else []
        try:
            body = json.loads(rows[0].record) if rows else None
        except (ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) else None

    async def records_at(self, places: Sequence[str]) -> list[AuditRow]:
        """Return the records with these ids; leave out those that are gone."""
        known = [place for place in places if _PLACE.fullmatch(place)]
        if not known:
            return []
        async with store_errors("read the audit trail", keys.AUDIT), self._redis.pipeline(transaction=False) as pipe:
            for place in known:
                pipe.xrange(keys.AUDIT, place, place)
            found = await pipeline_replies(pipe, (keys.AUDIT for _ in known))
        return [row_of(*rows[0]) for rows in found if rows]

    async def page(self, low: str, high: str = "+", count: int = _PAGE) -> list[AuditRow]:
        """Return up to `count` records from `low` on; `(<id>` excludes that id."""
        async with store_errors("read the audit trail", keys.AUDIT):
            return [row_of(*row) for row in await self._redis.xrange(keys.AUDIT, low, high, count)]

    async def page_before(self, high: str, count: int) -> list[AuditRow]:
        """Return up to `count` records from `high` back, newest first; `(<id>` excludes that id."""
        async with store_errors("read the audit trail", keys.AUDIT):
            return [row_of(*row) for row in await self._redis.xrevrange(keys.AUDIT, high, "-", count)]

    async def pages(self, low: str = START, high: str = "+", count: int = _PAGE) -> AsyncIterator[list[AuditRow]]:
        """Yield all records from `low` to `high`, in order, by pages; the next one is fetched meanwhile."""
        ahead = asyncio.ensure_future(self.page(low, high, count))
        try:
            while rows := await ahead:
                if len(rows) == count:
                    ahead = asyncio.ensure_future(self.page(f"({rows[-1].id}", high, count))
                    await asyncio.sleep(0)  # lets the request be sent
                yield rows
                if len(rows) < count:
                    return
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    async def last(self) -> str | None:
        """Return the id of the newest record, or None."""
        async with store_errors("read the audit trail", keys.AUDIT):
            rows = await self._redis.xrevrange(keys.AUDIT, count=1)
        return row_of(*rows[0]).id if rows else None

    async def length(self) -> int:
        """Return how many records the trail holds."""
        async with store_errors("read the audit trail", keys.AUDIT):
            return int(await self._redis.xlen(keys.AUDIT))

    async def hash_before(self, chain: str, place: str) -> str:
        """Return the hash of the record before this one in its chain; 64 zeros when there is none."""
        async with store_errors("read the audit trail", keys.chain_records(chain)):
            places = [
                raw.decode(errors="replace") for raw in await self._redis.lrange(keys.chain_records(chain), 0, -1)
            ]
        n = places.index(place) if place in places else 0
        rows = await self.records_at(places[n - 1 : n]) if n else []
        return rows[0].hash if rows else GENESIS

    async def note(self, act: str, *, app: str, job_id: str | None, by: str, why: str, **data: Any) -> AuditRow:
        """Append the record of an action on a job, or (without `job_id`) on an app: who, what and why.

        It is chained to the records before it, and must hold no content. Raises Refused for a job without a trail.
        """
        chain = job_id if job_id is not None else app_chain(app)
        record = note_record(act, at=self._clock.now(), app=app, job_id=job_id, by=by, why=why, data=data)
        for _ in range(_MAX_TRIES):
            last = await self.last_of_chain(chain)
            if last is None and job_id is not None:
                raise Refused("job_not_found", "There is no audit trail of such a job.", 404)
            if last is not None and last.record == canonical(record):
                return last  # it was written, only the reply was lost
            head, body = link(last.hash if last else GENESIS, record)
            async with store_errors("write to the audit trail"):
                names = [keys.AUDIT, keys.chain_records(chain), keys.job(chain), keys.NOTE_COUNT]
                fields = stored_fields(head, body, compact=writes_compact(self._redis))
                args = [last.id if last else "", head, *fields]
                place = await self._append_script(keys=names, args=args)
            if place:
                return AuditRow(place.decode(), head, body)
        raise Refused("job_busy", "The job is changing right now; try again.", 409)

    async def last_of_chain(self, chain: str) -> AuditRow | None:
        """Return the newest record of a chain, or None when it has none. Raises Refused when that record is gone."""
        async with store_errors("read the audit trail", keys.chain_records(chain)):
            place = await self._redis.lindex(keys.chain_records(chain), -1)
        if place is None:
            return None
        rows = await self.records_at([place.decode(errors="replace")])
        if not rows:
            raise Refused("trail_broken", f"The last record of {chain} is gone; `vigil audit verify` says more.")
        return rows[0]


def record_prefix(app: str) -> bytes:
    """Return how each record of an app begins: keys are sorted, and none comes before `app`."""
    return b'{"app":%b,' % json.dumps(app, ensure_ascii=False).encode()
