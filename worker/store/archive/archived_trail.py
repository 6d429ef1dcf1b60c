"""Reads that part of the trail which may have left Redis: pages in order, single records, chains of jobs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from typing import Final

from worker.audit.archive_entry import ArchiveEntry
from worker.audit.chain import AuditRow, stream_id
from worker.audit.chain_filter import may_have
from worker.jobs.ids import is_job_id, time_ms
from worker.store.archive.archive_state import ArchiveState
from worker.store.archive.audit_archive import AuditArchive

_MAX: Final = 2**63
_CLOCK_SKEW_MS: Final = 3_600_000
Place = tuple[int, int]


class ArchivedTrail:
    """The records up to `state.trimmed` (`last`, `end`), without those that retention has removed."""

    def __init__(self, archive: AuditArchive, state: ArchiveState) -> None:
        self._archive, self._state = archive, state
        self.last, self.end = state.trimmed, stream_id(state.trimmed)

    async def page(self, low: Place, high: Place, count: int) -> list[AuditRow]:
        """Return the first `count` records from `low` to `high`, both included."""
        found: list[AuditRow] = []
        high = min(high, self.end)
        async for entry in self._from(low):
            if len(found) >= count or stream_id(entry.body["first"]) > high:
                break
            segment = await self._archive.segment(entry)
            first, last = bisect_left(segment.places, low), bisect_right(segment.places, high)
            found += segment.rows[first : min(last, first + count - len(found))]
        return found

    async def page_before(self, low: Place, high: Place, count: int) -> list[AuditRow]:
        """Return the last `count` records from `low` to `high`, both included, newest first."""
        found: list[AuditRow] = []
        high = min(high, self.end)
        number = min(await self._number_at(high), self._state.entry)
        while number >= 1 and len(found) < count:
            entry = await self._segment_entry(number)
            number -= 1
            if entry is None:
                continue
            if stream_id(entry.last) < low:
                break
            segment = await self._archive.segment(entry)
            first, last = bisect_left(segment.places, low), bisect_right(segment.places, high)
            found += segment.rows[max(first, last - (count - len(found))) : last][::-1]
        return found

    async def records_at(self, places: Sequence[str]) -> list[AuditRow]:
        """Return those of these records that are archived and may have left Redis, in order."""
        found: list[AuditRow] = []
        for wanted in sorted({stream_id(place) for place in places}):
            if wanted <= self.end:
                found += await self.page(wanted, wanted, 1)
        return found

    async def of_chain(self, chain: str, until: Place | None = None, *, first: bool = False) -> list[AuditRow]:
        """Return the archived records of a job, up to `until`, in order; `first`: only the first of them."""
        if not is_job_id(chain):
            return []
        found: list[AuditRow] = []
        start = (max(0, time_ms(chain) - _CLOCK_SKEW_MS), 0)
        end = self.end if until is None else min(until, self.end)
        async for entry in self._from(start):
            if stream_id(entry.body["first"]) > end:
                break
            if may_have(str(entry.body["chains"]), chain):
                segment = await self._archive.segment(entry)
                found += [row for row in segment.by_chain.get(chain, ()) if stream_id(row.id) <= end]
            if found and first:
                return found[:1]
        return found

    async def _from(self, low: Place) -> AsyncIterator[ArchiveEntry]:
        """Yield the entries of segments that are not over, from the one that has this place on."""
        for number in range(await self._number_at(low), self._state.entry + 1):
            entry = await self._segment_entry(number)
            if entry is not None:
                yield entry

    async def _number_at(self, place: Place) -> int:
        ms, number = place
        if ms >= _MAX:
            return self._state.entry
        return await self._archive.first_entry_at(f"{ms}-{number}", self._state.entry)

    async def _segment_entry(self, number: int) -> ArchiveEntry | None:
        entry = await self._archive.entry(number)
        if entry is None or entry.kind != "segment" or self._state.is_over(number, entry.last):
            return None
        return entry


def lowest(bound: str) -> Place:
    """Return the first place that the beginning of a range admits: `-`, an id, a millisecond, `(` excludes it."""
    if bound == "-":
        return (0, 0)
    ms, number = _parts(bound.removeprefix("("), 0)
    return (ms, number + 1) if bound.startswith("(") else (ms, number)


def highest(bound: str) -> Place:
    """Return the last place that the end of a range admits: `+`, an id, a millisecond, `(` excludes it."""
    if bound == "+":
        return (_MAX, 0)
    if not bound.startswith("("):
        return _parts(bound, _MAX)
    ms, number = _parts(bound[1:], 0)
    return (ms, number - 1) if number else (ms - 1, _MAX)


def _parts(text: str, default: int) -> Place:
    ms, mark, number = text.partition("-")
    return int(ms), int(number) if mark else default
