"""Removes from Redis what the archive has, some days after it was written.

What stays: the records of jobs that are still in Redis, because those go on and are read (they leave with the job), and
of acts and looks of people, which are few and which others refer to. Each segment is read again before its records go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow, read_header, stream_id
from worker.audit.seals import parse
from worker.audit.segments import Segment
from worker.clock import Clock, to_ms
from worker.store import keys
from worker.store.archive.archive_state import ArchiveState, ArchiveStates
from worker.store.archive.audit_archive import AuditArchive
from worker.store.audit.content_reads import CONTENT_READ
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.lifecycle.archiver import ArchiveRefused

_RECORDS_AT_ONCE: Final = 1_000
_IDS_OF_A_CHAIN: Final = 500
_PAGE: Final = 1_000
Chains = list[tuple[str, list[str]]]


class Trimming:
    """Trims one trail in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._trail, self._seals, self._states = Trail(redis, clock), Seals(redis), ArchiveStates(redis)
        self._script: Any = script(redis, "archive/trim_archived")

    async def run(self, state: ArchiveState, archive: AuditArchive, ttl: float) -> int:
        """Remove what was written longer ago than `ttl` seconds; return how many records went.

        Raises ArchiveRefused, ArchiveDamaged or ArchiveUnavailable: then nothing more went.
        """
        edge, gone = to_ms(self._clock.now()) - ttl * 1000, 0
        number = await archive.first_entry_at(_next(state.cleared), state.entry)
        while number <= state.entry:
            entry = await archive.entry(number)
            number += 1
            if entry is None or entry.kind != "segment":
                continue
            if stream_id(entry.last)[0] >= edge:
                break
            archive.forget(entry)  # what is kept in memory proves nothing of the object
            segment = await archive.segment(entry)
            removed, state = await self._trim(state, segment)
            gone += removed
        return gone

    async def _trim(self, state: ArchiveState, segment: Segment) -> tuple[int, ArchiveState]:
        await self._check_same(segment)
        last, gone = segment.rows[-1].id, 0
        first_seal, cut = await self._seals_to_cut(segment.seals[-1].number)
        *batches, end = _batches(segment.rows)
        for chains in batches:  # readers go to the archive from the first one on
            after = state.trimmed_to(last)
            gone += await self._remove(state, after, chains, b"", 0)
            state = after
        after = state.trimmed_to(last, cleared=True)
        return gone + await self._remove(state, after, end, first_seal, cut), after

    async def remove_job(self, job_id: str) -> None:
        """Remove the archived records of a job that has just left Redis; those that are due later go in their time."""
        state = await self._states.get()
        if state is None or not state.has_left:
            return
        async with store_errors("read the audit trail", keys.chain_records(job_id)):
            listed = await self._redis.lrange(keys.chain_records(job_id), 0, -1)
        places = [raw.decode(errors="replace") for raw in listed]
        rows = [row for row in await self._trail.stored_at(places) if state.has_left_redis(row.id)]
        for chains in _batches(rows):
            await self._remove(state, state, chains, b"", 0)

    async def _check_same(self, segment: Segment) -> None:
        """Check that Redis holds nothing else than the archive: what somebody changed must stay where it is seen."""
        archived = {row.id: row for row in segment.rows}
        low, high = segment.rows[0].id, segment.rows[-1].id
        while rows := await self._trail.stored_page(low, high, _PAGE):
            changed = next((row for row in rows if archived.get(row.id) != row), None)
            if changed is not None:
                raise ArchiveRefused(f"{changed.id} in Redis is not what was archived; `vigil audit verify` says more")
            low = f"({rows[-1].id}"

    async def _seals_to_cut(self, through: int) -> tuple[bytes, int]:
        """Return (the first seal in Redis, how many go up to the seal of this number); the newest one stays."""
        first, count = await self._seals.first(), await self._seals.count()
        if first is None:
            return b"", 0
        return first, max(0, min(through - parse(first).number + 1, count - 1))

    async def _remove(
        self, before: ArchiveState, after: ArchiveState, chains: Chains, first_seal: bytes, cut: int
    ) -> int:
        names = [keys.ARCHIVE, keys.AUDIT, keys.SETTLED, keys.SEALS]
        args: list[str | bytes | int] = [before.line, after.line, first_seal, cut]
        for chain, places in chains:
            names += [keys.job(chain), keys.chain_records(chain)]
            args += [chain, len(places), *places]
        async with store_errors("trim the audit trail"):
            gone = int(await self._script(keys=names, args=args))
        if gone < 0:
            raise ArchiveRefused("another worker archives at the same time")
        return gone


def _batches(rows: Sequence[AuditRow]) -> Iterator[Chains]:
    """Yield the ids of these records by chain, about a thousand at a time, without those that stay; one at least."""
    chains, size = dict[str, list[str]](), 0
    for row in rows:
        try:
            chain, _, kind = read_header(row.record)
        except ValueError:
            continue
        if chain.startswith("app:") or kind == CONTENT_READ:
            continue
        chains.setdefault(chain, []).append(row.id)
        size += 1
        if size >= _RECORDS_AT_ONCE or len(chains[chain]) >= _IDS_OF_A_CHAIN:
            yield list(chains.items())
            chains, size = {}, 0
    yield list(chains.items())


def _next(place: str) -> str:
    ms, number = stream_id(place)
    return f"{ms}-{number + 1}"
