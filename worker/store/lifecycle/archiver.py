"""Moves the sealed trail to the archive: first the segment, then its entry in the manifest, then Redis is told.

Whatever is cut short is done again: objects have names of their own and are written if absent, so several workers at
once, or a crash between two steps, make no second entry of a record. Nothing is archived that its seal does not prove.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from arq.connections import ArqRedis

from worker.audit.archive_entry import ArchiveEntry, BadEntry, entry_fault, parse_entry, segment_entry
from worker.audit.chain import AuditRow, stream_id
from worker.audit.keys import Signer, TrustedKeys
from worker.audit.seals import Seal, parse
from worker.audit.segments import (
    MAX_BYTES,
    MAX_RECORDS,
    BadSegment,
    Segment,
    unnamed_jobs,
    write_segment,
)
from worker.clock import Clock, to_ms
from worker.store.archive.archive_state import ArchiveState, ArchiveStates
from worker.store.archive.audit_archive import AuditArchive
from worker.store.audit.end_user_rows import EndUserRows
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail

_WAIT_MS: Final = 3_600_000
"""A segment is written when it is full, or when its first record is so old."""
Part = tuple[Seal, Sequence[AuditRow]]


class ArchiveRefused(Exception):
    """Nothing more can be archived as things stand; the message says why, for operators."""


class Archiver:
    """Archives one trail."""

    def __init__(
        self, redis: ArqRedis, clock: Clock, archive: AuditArchive, signer: Signer, trusted: TrustedKeys, ttl: float
    ) -> None:
        """`ttl`: seconds after which records are to leave Redis."""
        self._clock, self._archive, self._signer, self._trusted = clock, archive, signer, trusted
        self._trail, self._seals, self._states = Trail(redis, clock), Seals(redis), ArchiveStates(redis)
        self._end_users = EndUserRows(redis, self._trail)
        self._wait_ms = min(_WAIT_MS, ttl * 1000 / 4)

    async def run(self, *, now: bool = False) -> int:
        """Archive what is due (`now`: all that is sealed); return how many records went.

        Raises ArchiveRefused, or ArchiveUnavailable when the archive can't be reached.
        """
        total = 0
        while parts := await self._next_parts(state := await self.state(), now=now):
            total += await self._archive_parts(state, parts)
        return total

    async def state(self) -> ArchiveState:
        """Return how far the archive goes, brought up to date from its manifest where Redis is behind it.

        Raises ArchiveRefused when the manifest is not that of this trail.
        """
        stored = await self._states.get()
        state = stored or ArchiveState()
        before: ArchiveEntry | None = None
        if state.entry:
            before = await self._trusted_entry(state.entry, None)
            if before is None or before.hash != state.entry_hash:
                raise ArchiveRefused(
                    f"manifest entry {state.entry} is gone from {self._archive.address} or another one"
                )
        while (entry := await self._trusted_entry(state.entry + 1, before)) is not None:
            state, before = await self._extended(entry, state), entry
        if stored is not None and state.address != self._archive.address and state.entry:
            state = state.moved_to(self._archive.address)
        if state.line and state.line != (stored.line if stored is not None else b""):
            await self._states.replace(stored, state)
        return state

    async def _trusted_entry(self, number: int, before: ArchiveEntry | None) -> ArchiveEntry | None:
        line = await self._archive.raw_entry(number)
        if line is None:
            return None
        try:
            entry = parse_entry(line)
        except BadEntry:
            raise ArchiveRefused(f"manifest entry {number} can't be read") from None
        if number > 1 and before is None:
            before = await self._archive.entry(number - 1)
        fault = entry_fault(entry, before, number, self._trusted)
        if fault is not None:
            raise ArchiveRefused(fault)
        return entry

    async def _extended(self, entry: ArchiveEntry, state: ArchiveState) -> ArchiveState:
        """Return the state with an entry that Redis did not know of. Raises ArchiveRefused for one of another trail."""
        after = state.after(entry, self._archive.address)
        if entry.kind != "segment":
            return after
        first, number = await self._seals.first(), int(entry.body["seal"])
        begins = parse(first) if first is not None else None
        if begins is not None and begins.number > number:  # its checkpoints left Redis, whose own note of that is lost
            fits = begins.number > number + 1 or begins.body["previous"] == entry.body["seal_hash"]
            after = after.trimmed_to(entry.last)
        else:
            seal = await self._seals.numbered(number)
            fits = seal is not None and seal.hash == entry.body["seal_hash"]
        if not fits:
            raise ArchiveRefused(
                f"{self._archive.address} holds another trail, or one that goes on where this Redis was set back: "
                f"{entry} is not of checkpoints that are here; see ops/backup.md"
            )
        return after

    async def _next_parts(self, state: ArchiveState, *, now: bool) -> list[Part]:
        """Return the next seals with their records; none while they may wait for more."""
        parts, size, count = list[Part](), 0, 0
        number = state.seal
        while count < MAX_RECORDS and size < MAX_BYTES and (seals := await self._seals.after_number(number)):
            if seals[0].number != number + 1 and number:
                raise ArchiveRefused(f"checkpoint {number + 1} is missing in Redis, and is not archived")
            for seal in seals:
                rows = await self._rows_of(seal)
                parts.append((seal, rows))
                size, count = size + sum(len(row.record) + 120 for row in rows), count + len(rows)
                number = seal.number
                if count >= MAX_RECORDS or size >= MAX_BYTES:
                    return parts
        while parts and parts[-1][0].kind == "retention":
            parts.pop()  # a segment ends with a record
        first = next((rows[0] for _, rows in parts if rows), None)
        if first is None:
            return []
        due = to_ms(self._clock.now()) - stream_id(first.id)[0] >= self._wait_ms
        return parts if now or due else []

    async def _rows_of(self, seal: Seal) -> list[AuditRow]:
        if seal.kind != "checkpoint":
            return []
        return await self._trail.stored_page(str(seal.body["first"]), seal.last, int(seal.body["count"]) + 1)

    async def _archive_parts(self, state: ArchiveState, parts: Sequence[Part]) -> int:
        rows = [row for _, some in parts for row in some]
        named = await self._end_users.of_jobs(unnamed_jobs(rows))
        try:
            content = await asyncio.to_thread(write_segment, parts, named)
        except BadSegment as error:
            raise ArchiveRefused(f"{error}; `vigil audit verify` says more") from None
        before = await self._archive.entry(state.entry) if state.entry else None
        segment = Segment([seal for seal, _ in parts], rows, named)
        entry = segment_entry(self._signer, before, segment, content, self._clock.now())
        await self._archive.put_segment(entry, content)
        if not await self._archive.put_entry(entry):
            return 0  # another worker was quicker: the next look at the manifest sees its entry
        await self._states.replace(state if state.line else None, state.after(entry, self._archive.address))
        return len(rows)
