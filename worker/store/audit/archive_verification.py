"""Verify the archive of the trail: its manifest first, then each segment, which it feeds to the verifier of the trail.

The first thing that is wrong ends the proof, and is named: an entry, a segment, and where it can be told the record.
What Redis still has of an archived time is compared with the archive on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from arq.connections import ArqRedis

from worker.audit.archive_entry import ArchiveEntry, BadEntry, entry_fault, parse_entry
from worker.audit.chain import AuditRow, stream_id
from worker.audit.diagnose import AuditFault, TamperKind
from worker.audit.keys import TrustedKeys
from worker.audit.seals import Seal
from worker.audit.segments import BadSegment, Segment, object_digest, read_segment
from worker.audit.verify import Verifier
from worker.clock import Clock
from worker.store.archive.archive_state import ArchiveState
from worker.store.archive.audit_archive import AuditArchive
from worker.store.audit.seals import Seals
from worker.store.audit.trail import START, Trail

_AT_ONCE: Final = 8
_MAX_NAMED: Final = 5
Rest = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class VerifiedManifest:
    """What the manifest says, as far as it was proven; `entries` are its segments, without their filters."""

    entries: list[ArchiveEntry] = field(default_factory=list)
    newest: ArchiveEntry | None = None
    retention: ArchiveEntry | None = None
    fault: AuditFault | None = None

    def is_over(self, entry: ArchiveEntry) -> bool:
        """Return whether retention removed this segment."""
        return self._is_past(entry) and entry.number not in (self.retention.body["kept"] if self.retention else ())

    def is_kept(self, entry: ArchiveEntry) -> bool:
        """Return whether a hold kept this segment beyond its time."""
        return self._is_past(entry) and not self.is_over(entry)

    def _is_past(self, entry: ArchiveEntry) -> bool:
        return self.retention is not None and entry.number <= int(self.retention.body["through"])

    @property
    def begin(self) -> tuple[int, str] | None:
        """Return (number, hash) of the last seal that retention removed with its segment, or None."""
        past = [entry for entry in self.entries if self._is_past(entry)]
        return (int(past[-1].body["seal"]), str(past[-1].body["seal_hash"])) if past else None


class ArchiveVerification:
    """One verification of one archive."""

    def __init__(self, redis: ArqRedis, clock: Clock, archive: AuditArchive, trusted: TrustedKeys, rest: Rest) -> None:
        """`rest` is called between steps, with the number of records that were verified."""
        self._archive, self._trusted, self._rest_after = archive, trusted, rest
        self._trail, self._seals = Trail(redis, clock), Seals(redis)
        self._verifier = Verifier(trusted)
        self.page = 5_000  # records at a time
        self.faults: list[AuditFault] = []
        self.over: ArchiveEntry | None = None  # the entry that says what retention removed

    async def run(self, state: ArchiveState, retention: Seal | None) -> tuple[Verifier, str | None, int]:
        """Verify what a hold kept in Redis, and the archive.

        Return (the verifier, where in Redis it goes on, how many seals there are known already); nowhere if something
        is wrong: `faults` has what, or the verifier.
        """
        manifest = await self.manifest(state)
        self.over = manifest.retention
        self._verifier = verifier = Verifier(self._trusted, retention, begin=manifest.begin)
        if manifest.fault is not None:
            return self._ended(manifest.fault)
        if retention is not None:
            async for rows in self._trail.stored_pages(START, str(retention.body["upto"]), self.page):
                verifier.feed(rows)
        await self.segments(manifest, state, verifier)
        if self.faults or verifier.stopped:
            return self._ended(None)
        newest, first = manifest.newest, await self._seals.first_number()
        places = [str(retention.body["upto"])] if retention is not None else []
        if newest is None:
            return verifier, f"({places[0]}" if places else START, 0
        through = int(newest.body["seal"])
        if first is not None and first > through + 1:
            one = first == through + 2
            between = f"checkpoint {first - 1} is" if one else f"checkpoints {through + 1} to {first - 1} are"
            detail = f"{between} neither in the archive, which ends with {newest.last}, nor in Redis"
            return self._ended(AuditFault(TamperKind.REMOVED, detail, checkpoint=through + 1))
        low = max([newest.last, *places], key=stream_id)
        return verifier, f"({low}", through - first + 1 if first is not None else 0

    def _ended(self, fault: AuditFault | None) -> tuple[Verifier, None, int]:
        self._verifier.stopped = True
        self.faults += [fault] if fault is not None else []
        return self._verifier, None, 0

    async def _rest(self) -> None:
        await self._rest_after(self._verifier.records)

    async def manifest(self, state: ArchiveState) -> VerifiedManifest:
        """Return the manifest; its `fault` is the first one. It is read up to there."""
        found, number = VerifiedManifest(), 0
        async for page in self._archive.numbers_after(0):
            for start in range(0, len(page), _AT_ONCE):
                some = page[start : start + _AT_ONCE]
                lines = await asyncio.gather(*map(self._archive.raw_entry, some))
                for there, line in zip(some, lines, strict=True):
                    number += 1
                    if there != number:
                        found.fault = _fault(f"manifest entry {number} is missing: entry {there} is there")
                    else:
                        found.fault = self._enter(found, number, line)
                    if found.fault is not None:
                        return found
                await self._rest()
        if number < state.entry:
            what = f"manifest entry {number + 1} is" if number + 1 == state.entry else "the manifest's entries"
            what += "" if number + 1 == state.entry else f" {number + 1} to {state.entry} are"
            found.fault = _fault(f"{what} missing: the manifest was cut off behind entry {number}")
        elif state.entry == number and found.newest is not None and found.newest.hash != state.entry_hash:
            found.fault = _fault(f"manifest entry {number} is not the one that Redis knows")
        return found

    def _enter(self, found: VerifiedManifest, number: int, line: bytes | None) -> AuditFault | None:
        try:
            entry = parse_entry(line or b"")
        except BadEntry:
            return _fault(f"manifest entry {number} can't be read")
        why = entry_fault(entry, found.newest, number, self._trusted)
        if why is not None:
            return _fault(why)
        found.newest = entry
        if entry.kind == "retention":
            found.retention = entry
        else:  # without the filter, which is the largest part of it
            found.entries.append(ArchiveEntry(b"", {**entry.body, "chains": ""}))
        return None

    async def segments(self, manifest: VerifiedManifest, state: ArchiveState, verifier: Verifier) -> None:
        """Feed each segment to the verifier, until something is wrong; `faults` then has what."""
        for entry in manifest.entries:
            if manifest.is_over(entry):
                continue
            segment = await self._checked(entry, manifest, verifier)
            if segment is None or verifier.stopped:
                return
            if manifest.is_kept(entry):
                number, previous = entry.body["seals"]
                alone = Verifier(self._trusted, begin=(int(number) - 1, str(previous)))
                await self._feed(alone, segment)
                alone.finish()
                verifier.kept += alone.records
                self.faults += alone.faults
            else:
                await self._feed(verifier, segment)
                await self._compare(segment, state)
            if self.faults or verifier.stopped:
                return

    async def _checked(self, entry: ArchiveEntry, manifest: VerifiedManifest, verifier: Verifier) -> Segment | None:
        """Return the segment if its object is what the entry names, else None with a fault."""
        content = await self._archive.raw_segment(entry)
        if content is None:
            self.faults.append(_fault(f"{entry} is missing"))
            return None
        digest = object_digest(content)
        try:
            segment = await asyncio.to_thread(read_segment, content)
        except BadSegment as error:
            segment, unreadable = None, f": it {error}"
        else:
            unreadable = ""
        if digest == entry.body["digest"] and segment is not None:
            return segment
        other = next((one for one in manifest.entries if one.body["digest"] == digest), None)
        if other is not None:
            self.faults.append(_fault(f"{entry} was exchanged: what is there is segment {other.number}"))
            return None
        self.faults.append(_fault(f"{entry} is not byte for byte what was archived{unreadable}"))
        if segment is not None:  # which record is wrong its seals say
            await self._feed(verifier, segment)
            verifier.finish()
            for chain, row in islice(verifier.suspects.items(), _MAX_NAMED):
                detail = f"{row.id} of {chain} does not follow from the record before it"
                self.faults.append(AuditFault(TamperKind.ALTERED, detail, row.id, chain))
            verifier.suspects.clear()
        return None

    async def _feed(self, verifier: Verifier, segment: Segment) -> None:
        verifier.add(seal.line for seal in segment.seals)
        for start in range(0, len(segment.rows), self.page):
            verifier.feed(segment.rows[start : start + self.page])
            await self._rest()

    async def _compare(self, segment: Segment, state: ArchiveState) -> None:
        """Compare a segment with what Redis still has of it."""
        first = await self._seals.first_number()
        if first is not None and first <= segment.seals[-1].number:
            async for number, line in self._stored_seals(max(first, segment.seals[0].number), segment, first):
                if line != segment.seals[number - segment.seals[0].number].line:
                    self.faults.append(
                        AuditFault(
                            TamperKind.CHECKPOINT,
                            f"checkpoint {number} in Redis is not the one in the archive",
                            checkpoint=number,
                        )
                    )
                    return
        here, left = stream_id(state.trimmed), 0
        low, high = segment.rows[0].id, segment.rows[-1].id
        archived = {row.id: row for row in segment.rows}
        while rows := await self._trail.stored_page(low, high, self.page):
            changed = next((row for row in rows if archived.pop(row.id, None) != row), None)
            if changed is not None:
                self.faults.append(_differs(changed, segment.rows))
                return
            low = f"({rows[-1].id}"
            await self._rest()
        gone = next((row for row in segment.rows if row.id in archived and stream_id(row.id) > here), None)
        left = sum(stream_id(place) > here for place in archived)
        if gone is not None:
            more = f" ({left:,} in all)" if left > 1 else ""
            detail = f"{gone.id} is in the archive, but was removed from Redis before its time{more}"
            self.faults.append(AuditFault(TamperKind.REMOVED, detail, gone.id))

    async def _stored_seals(self, low: int, segment: Segment, first: int) -> AsyncIterator[tuple[int, bytes]]:
        number, count = low, segment.seals[-1].number - first + 1
        async for lines in self._seals.pages(count, low - first):
            for line in lines:
                yield number, line
                number += 1


def _differs(row: AuditRow, rows: Sequence[AuditRow]) -> AuditFault:
    if any(one.id == row.id for one in rows):
        return AuditFault(TamperKind.ALTERED, f"{row.id} in Redis is not the record that was archived", row.id)
    return AuditFault(TamperKind.INSERTED, f"{row.id} in Redis is none of the records that were archived", row.id)


def _fault(detail: str) -> AuditFault:
    return AuditFault(TamperKind.ARCHIVE, detail)
