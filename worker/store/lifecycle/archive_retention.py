"""Removes segments from the archive when all of their records are over, by an entry of the manifest that says so.

The entry comes first, then the objects are deleted; where the bucket is write-once that is refused, and its own rules
delete them. A segment goes when its last record is older than the longest time that any app keeps its records; a legal
hold on any record in it keeps it whole. What Redis still has of that time (acts and looks of people) goes with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from arq.connections import ArqRedis

from worker.audit.archive_entry import ArchiveEntry, retention_entry
from worker.audit.chain import AuditRow, chain_of_row, stream_id
from worker.audit.keys import Signer
from worker.clock import Clock, to_ms
from worker.store import keys
from worker.store.apps import Apps
from worker.store.archive.archive_state import ArchiveState, ArchiveStates
from worker.store.archive.audit_archive import AuditArchive
from worker.store.audit.end_user_rows import EndUserRows
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.errors import store_errors
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.lifecycle.legal_holds import LegalHolds

_PAGE: Final = 500


class ArchiveRetention:
    """Removes what is over from one archive."""

    def __init__(
        self, redis: ArqRedis, clock: Clock, archive: AuditArchive, signer: Signer, keep: RetentionTimes
    ) -> None:
        self._redis, self._clock, self._archive, self._signer = redis, clock, archive, signer
        self._trail, self._seals, self._states = Trail(redis, clock), Seals(redis), ArchiveStates(redis)
        self._holds, self._apps = LegalHolds(redis, clock, keep), Apps(redis, clock)
        self._end_users = EndUserRows(redis, self._trail)
        self._keep, self._longest = max(keep.audit, keep.result), max(keep.audit, keep.result, keep.audit_max or 0)

    async def run(self, state: ArchiveState) -> int:
        """Remove what is over; return how many records went. Raises ArchiveDamaged, ArchiveUnavailable."""
        due, kept = await self._due(state), await self._kept(state)
        before = await self._archive.entry(state.retention) if state.retention else None
        holds = await self._holds.names()
        if not due and (not kept or before is None or set(before.body["holds"]) == holds):
            return 0
        held = [entry for entry in (*kept, *due) if await self._is_held(entry, holds)]
        gone = [entry for entry in (*kept, *due) if entry not in held]
        if not due and not gone:
            return 0
        newest = await self._archive.entry(state.entry)
        through = due[-1] if due else await self._archive.entry(int(before.body["through"]) if before else 0)
        if newest is None or through is None:
            return 0
        count = sum(int(entry.body["count"]) for entry in gone)
        entry = retention_entry(
            self._signer,
            newest,
            through=through,
            kept=[one.number for one in held],
            removed=count + (int(before.body["removed"]) if before is not None else 0),
            holds=holds,
            at=self._clock.now(),
        )
        if not await self._archive.put_entry(entry):
            return 0  # another worker was quicker
        after = state.after(entry, self._archive.address)
        if await self._states.replace(state, after):
            for one in gone:
                await self._archive.remove_segment(one)
            await self._clear_redis(after, holds)
        return count

    async def _due(self, state: ArchiveState) -> list[ArchiveEntry]:
        """Return the segments that are over since the last time, of those whose records have left Redis."""
        edge = to_ms(self._clock.now()) - await self._longest_kept() * 1000
        number = await self._archive.first_entry_at(_after(state.removed), state.entry)
        found: list[ArchiveEntry] = []
        while number <= state.entry:
            entry = await self._archive.entry(number)
            number += 1
            if entry is None or entry.kind != "segment":
                continue
            place = stream_id(entry.last)
            if place[0] >= edge or place > stream_id(state.cleared):
                break
            found.append(entry)
        return found

    async def _kept(self, state: ArchiveState) -> list[ArchiveEntry]:
        found = [await self._archive.entry(number) for number in state.kept]
        return [entry for entry in found if entry is not None]

    async def _longest_kept(self) -> int:
        """Return the seconds that the app which keeps its records longest keeps them."""
        own = [app.retention.audit or 0 for app in await self._apps.list_apps() if app.retention is not None]
        return max([self._keep, *(min(seconds, self._longest) for seconds in own)])

    async def _is_held(self, entry: ArchiveEntry, holds: set[str]) -> bool:
        return bool(holds) and bool(await self._held((await self._archive.segment(entry)).rows, holds))

    async def _held(self, rows: Sequence[AuditRow], holds: set[str]) -> set[str]:
        """Return the ids of those of these records that a hold keeps, or may keep."""
        return await self._end_users.held(rows, holds) | {row.id for row in rows if is_held(row, holds)}

    async def _clear_redis(self, state: ArchiveState, holds: set[str]) -> None:
        """Remove what Redis has of the time that is over; what its own retention keeps is left to that."""
        line = await self._seals.retained()
        low = f"({json.loads(line)['upto']}" if line else "-"
        while rows := await self._trail.stored_page(low, state.removed, _PAGE):
            low = f"({rows[-1].id}"
            held = await self._held(rows, holds) if holds else set[str]()
            async with store_errors("trim the audit trail"), self._redis.pipeline(transaction=True) as pipe:
                for row in rows:
                    if row.id not in held:
                        pipe.xdel(keys.AUDIT, row.id)
                        pipe.lrem(keys.chain_records(chain_of_row(row)), 1, row.id)
                await pipe.execute()


def is_held(row: AuditRow, holds: set[str]) -> bool:
    """Return whether a hold on its job or app keeps this record, or may: who can't be read may be held."""
    if not holds:
        return False
    try:
        return chain_of_row(row) in holds or f"app:{json.loads(row.record)['app']}" in holds
    except (ValueError, LookupError, TypeError):
        return True


def _after(place: str) -> str:
    ms, number = stream_id(place)
    return f"{ms}-{number + 1}"
