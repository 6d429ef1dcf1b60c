"""Read the audit trail, by chain or from any id on, and append notes: records that are no events of a job.

Records that left Redis are read from the archive of the client (`store/archive`), so that every reader sees the whole.

The record of an event is written in the event's own commit (`jobs/commit_commands.py`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import GENESIS, AuditRow, app_chain, canonical, hash_of, link, stream_id
from worker.audit.record import note_record
from worker.clock import Clock
from worker.jobs.errors import Refused, StoreUnavailable
from worker.store import keys
from worker.store.archive.archive_state import ArchiveStates
from worker.store.archive.archived_trail import ArchivedTrail, highest, lowest
from worker.store.archive.attached import archive_of
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
    """The audit trail in Redis, and what of it is in the archive."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._archive, self._states = archive_of(redis), ArchiveStates(redis)
        self._append_script: Any = script(redis, "audit/append_note")

    async def of_chain(self, chain: str) -> list[AuditRow]:
        """Return all records of a job (or of `app:<name>`), in order."""
        return (await self.of_chains([chain]))[0]

    async def of_chains(self, chains: Sequence[str], until: str | None = None) -> list[list[AuditRow]]:
        """Return all records of each of these chains, in order; `until`: no archived ones behind this id are wanted."""
        names = [keys.chain_records(chain) for chain in chains]
        async with store_errors("read the audit trail"), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.lrange(name, 0, -1)
            listed = await pipeline_replies(pipe, names)
        places = [[raw.decode(errors="replace") for raw in one or ()] for one in listed]
        rows = {row.id: row for row in await self.stored_at([one for page in places for one in page])}
        found = [[rows[one] for one in page if one in rows] for page in places]
        archived = await self.archived()
        if archived is not None:
            end = None if until is None else stream_id(until)
            for n, chain in enumerate(chains):
                if chain.startswith("app:") or (found[n] and _begins(found[n][0])):
                    continue  # what concerns an app, or a job that is still there, is in Redis whole
                earlier = {row.id: row for row in await archived.of_chain(chain, end)}
                merged = earlier | {row.id: row for row in found[n]}
                found[n] = [merged[one] for one in sorted(merged, key=stream_id)]
        return found

    async def first_of_chain(self, chain: str) -> dict[str, Any] | None:
        """Return the oldest record that is kept of a chain, or None if there is none that can be read."""
        async with store_errors("read the audit trail", keys.chain_records(chain)):
            place = await self._redis.lindex(keys.chain_records(chain), 0)
        rows = await self.stored_at([place.decode(errors="replace")]) if place else []
        if not (rows and _begins(rows[0])) and (archived := await self.archived()) is not None:
            rows = await archived.of_chain(chain, first=True) or rows
        try:
            body = json.loads(rows[0].record) if rows else None
        except (ValueError, RecursionError):
            return None
        return body if isinstance(body, dict) else None

    async def records_at(self, places: Sequence[str]) -> list[AuditRow]:
        """Return the records with these ids; leave out those that are gone."""
        rows = await self.stored_at(places)
        missing = {place for place in places if _PLACE.fullmatch(place)}.difference(row.id for row in rows)
        if missing and (archived := await self.archived()) is not None:
            known = {row.id: row for row in (*rows, *await archived.records_at(list(missing)))}
            return [known[place] for place in places if place in known]
        return rows

    async def stored_at(self, places: Sequence[str]) -> list[AuditRow]:
        """Return those of these records that are in Redis."""
        known = [place for place in places if _PLACE.fullmatch(place)]
        if not known:
            return []
        async with store_errors("read the audit trail", keys.AUDIT), self._redis.pipeline(transaction=False) as pipe:
            for place in known:
                pipe.xrange(keys.AUDIT, place, place)
            found = await pipeline_replies(pipe, (keys.AUDIT for _ in known))
        return [row_of(*rows[0]) for rows in found if rows]

    async def archived(self) -> ArchivedTrail | None:
        """Return the part of the trail that may have left Redis, or None if none has.

        Raises StoreUnavailable when records left for an archive that this process was not given.
        """
        state = await self._states.get()
        if state is None or not state.has_left:
            return None
        if self._archive is None:
            raise StoreUnavailable(
                "read the audit trail",
                f"its records up to {state.trimmed} are in the archive {state.address}, and VIGIL_ARCHIVE is not set",
            )
        return ArchivedTrail(self._archive, state)

    def archived_end_user(self, job_id: str) -> tuple[bool, str | None]:
        """Return (whether a segment that was read lately says it, the end user of a job)."""
        return self._archive.end_user_of(job_id) if self._archive is not None else (False, None)

    async def page(self, low: str, high: str = "+", count: int = _PAGE) -> list[AuditRow]:
        """Return up to `count` records from `low` on; `(<id>` excludes that id."""
        archived = await self.archived()
        rows: list[AuditRow] = []
        if archived is not None and lowest(low) <= archived.end:
            rows = await archived.page(lowest(low), highest(high), count)
            low = f"({archived.last}"
            if len(rows) >= count or highest(high) <= archived.end:
                return rows
        return rows + await self.stored_page(low, high, count - len(rows))

    async def stored_page(self, low: str, high: str = "+", count: int = _PAGE) -> list[AuditRow]:
        """Return up to `count` records of Redis from `low` on."""
        async with store_errors("read the audit trail", keys.AUDIT):
            return [row_of(*row) for row in await self._redis.xrange(keys.AUDIT, low, high, count)]

    async def page_before(self, high: str, count: int) -> list[AuditRow]:
        """Return up to `count` records from `high` back, newest first; `(<id>` excludes that id."""
        archived = await self.archived()
        low = f"({archived.last}" if archived is not None else START
        rows: list[AuditRow] = []
        if archived is None or highest(high) > archived.end:
            async with store_errors("read the audit trail", keys.AUDIT):
                rows = [row_of(*row) for row in await self._redis.xrevrange(keys.AUDIT, high, low, count)]
        if archived is not None and len(rows) < count:
            rows += await archived.page_before(lowest(START), highest(high), count - len(rows))
        return rows

    def pages(self, low: str = START, high: str = "+", count: int = _PAGE) -> AsyncIterator[list[AuditRow]]:
        """Yield all records from `low` to `high`, in order, by pages; the next one is fetched meanwhile."""
        return self._pages(self.page, low, high, count)

    def stored_pages(self, low: str = START, high: str = "+", count: int = _PAGE) -> AsyncIterator[list[AuditRow]]:
        """Yield those of these records that are in Redis."""
        return self._pages(self.stored_page, low, high, count)

    async def _pages(
        self, page: Callable[[str, str, int], Awaitable[list[AuditRow]]], low: str, high: str, count: int
    ) -> AsyncIterator[list[AuditRow]]:
        ahead = asyncio.ensure_future(page(low, high, count))
        try:
            while rows := await ahead:
                if len(rows) == count:
                    ahead = asyncio.ensure_future(page(f"({rows[-1].id}", high, count))
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
        if not n and (archived := await self.archived()) is not None:
            before = [row for row in await archived.of_chain(chain, stream_id(place)) if row.id != place]
            return before[-1].hash if before else GENESIS
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


def _begins(row: AuditRow) -> bool:
    return hash_of(GENESIS, row.record) == row.hash


def record_prefix(app: str) -> bytes:
    """Return how each record of an app begins: keys are sorted, and none comes before `app`."""
    return b'{"app":%b,' % json.dumps(app, ensure_ascii=False).encode()
