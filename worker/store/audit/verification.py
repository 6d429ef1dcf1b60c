"""Verify the audit trail in Redis: stream it through the verifier, and compare the jobs' own records with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import GENESIS, AuditRow, chain_of_row, stream_id
from worker.audit.diagnose import AuditFault, TamperKind, diagnose_chain, diagnose_end
from worker.audit.keys import TrustedKeys
from worker.audit.report import Report
from worker.audit.seals import BadSeal, Seal, parse
from worker.audit.verify import Verifier
from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable
from worker.jobs.timestamps import iso_ms
from worker.store import keys
from worker.store.archive.archive_state import ArchiveState, ArchiveStates
from worker.store.archive.attached import archive_of
from worker.store.archive.audit_archive import ArchiveDamaged, AuditArchive
from worker.store.audit.archive_verification import ArchiveVerification
from worker.store.audit.seals import Seals
from worker.store.audit.trail import START, Trail
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies

_MAX_DETAILED_FAULTS: Final = 5  # more faults than that are reported as a number
_MAX_PASSES: Final = 3
_HOUR: Final = 3600


async def _no_rest(_: int) -> None:
    """Return at once."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is done at a time, and what happens between: a process that serves others meanwhile goes in small steps.

    `rest` is called after each step with the number of records that this reading of the trail has verified so far.
    """

    records: int = 5_000
    seals: int = 200
    jobs: int = 1_000
    rest: Callable[[int], Awaitable[None]] = _no_rest


FULL_PACE: Final = Pace()


class TrailVerification:
    """One verification of the whole trail."""

    def __init__(
        self,
        redis: ArqRedis,
        clock: Clock,
        trusted: TrustedKeys,
        sealed_within: float | None = None,
        pace: Pace = FULL_PACE,
    ) -> None:
        """`sealed_within`: older records that no checkpoint covers are a fault, if there is a key; None = never."""
        self._redis, self._clock, self._trusted, self._pace = redis, clock, trusted, pace
        self._sealed_within = sealed_within if len(trusted) else None
        self._trail, self._seals, self._states = Trail(redis, clock), Seals(redis), ArchiveStates(redis)
        self._starts: dict[str, str] = {}
        self._chain_heads_script: Any = script(redis, "audit/chain_heads")

    async def verify(self, shipped: Iterable[bytes] | None = None) -> Report:
        """Verify the trail and return a report; `shipped`: the copy of the seals that was kept elsewhere."""
        try:
            return await self._verify(shipped)
        except RecordUnreadable as error:
            return Report(faults=[_unreadable(error)])

    async def _verify(self, shipped: Iterable[bytes] | None) -> Report:
        report = Report()
        for _ in range(_MAX_PASSES):
            before, begun = await self._fixed(), self._clock.monotonic()
            report = await self._pass()
            report.seconds = self._clock.monotonic() - begun
            if report.good or before == await self._fixed():
                break  # otherwise retention ran meanwhile, or records went to the archive: verify again
        if shipped is not None:
            report.faults += await self._compare(shipped, report)
        return report

    async def _fixed(self) -> tuple[bytes | None, bytes]:
        """Return what changes when records are removed: the first seal, the state of the archive."""
        state = await self._states.get()
        return await self._seals.first(), state.line if state is not None else b""

    async def _pass(self) -> Report:
        begun = to_ms(self._clock.now())
        state = await self._states.get()
        count, first = await self._seals.count(), await self._seals.first()
        line = await self._seals.last_retention(count) if first and _number(first) != 1 else None
        if state is not None and line is None:
            line = await self._seals.retained()  # it may be in the archive by now
        try:
            retention = parse(line) if line else None
        except BadSeal as error:
            return Report(faults=[AuditFault(TamperKind.CHECKPOINT, f"the retention seal is {error}")])
        self._starts = dict(retention.body["heads"]) if retention is not None else {}
        archive = archive_of(self._redis)
        if archive is None and state is not None and state.has_left:
            detail = f"checkpoints up to {state.seal} are in the archive {state.address}, and VIGIL_ARCHIVE is not set"
            return Report(faults=[AuditFault(TamperKind.ARCHIVE, detail)])
        extra, over = list[AuditFault](), None
        if archive is None:
            verifier = Verifier(self._trusted, retention)
            await self._stream(verifier, count)
        else:
            verification, verifier = await self._stream_both(archive, state or ArchiveState(), retention)
            extra, over = verification.faults, verification.over
        faults = [*extra, *await self._explain(verifier)]
        named = {fault.job_id for fault in faults}
        faults += [fault for fault in await self._check_heads(verifier) if fault.job_id not in named]
        if not verifier.stopped:
            faults += self._unsealed(verifier, begun)
        report = Report(
            records=verifier.records,
            jobs=verifier.ended + sum(not chain.startswith("app:") for chain in verifier.open),
            seals=verifier.seals,
            unsealed=verifier.unsealed,
            kept=verifier.kept,
            faults=faults,
        )
        if retention is not None:
            report.removed, report.removed_before = retention.body["removed"], _time(retention.body["upto"])
        if over is not None:
            report.removed, report.removed_before = report.removed + over.body["removed"], _time(over.body["upto"])
        if not count and verifier.records:
            report.notes.append("nothing is sealed: does a worker run that has a signing key?")
        if verifier.forgotten:
            report.notes.append("some records that follow the end of a job are vouched for by their checkpoint alone")
        return report

    async def _stream_both(
        self, archive: AuditArchive, state: ArchiveState, retention: Seal | None
    ) -> tuple[ArchiveVerification, Verifier]:
        """Verify what a hold kept in Redis, the archive, and what follows in Redis."""
        verification = ArchiveVerification(self._redis, self._clock, archive, self._trusted, self._pace.rest)
        verification.page = self._pace.records
        verifier, low, skipped = await verification.run(state, retention)
        if low is not None:
            await self._stream(verifier, await self._seals.count(), low, skipped)
        return verification, verifier

    async def _stream(self, verifier: Verifier, count: int, low: str = START, skipped: int = 0) -> None:
        seals, more = self._seals.pages(count, skipped, size=self._pace.seals), count > skipped
        async for rows in self._trail.stored_pages(low, count=self._pace.records):
            while more and verifier.sealed_to < stream_id(rows[-1].id) and not verifier.stopped:
                lines = await anext(seals, None)
                more = lines is not None
                verifier.add(lines or ())
                await self._pace.rest(verifier.records)
            verifier.feed(rows)
            await self._pace.rest(verifier.records)
            if verifier.stopped:
                return
        while more and not verifier.stopped:
            lines = await anext(seals, None)
            more = lines is not None
            verifier.add(lines or ())
            await self._pace.rest(verifier.records)
        verifier.finish()

    def _unsealed(self, verifier: Verifier, now: int) -> list[AuditFault]:
        """Return the fault of checkpoints that are missing by now."""
        first = verifier.first_unsealed
        if first is None or self._sealed_within is None:
            return []
        seconds = (now - stream_id(first)[0]) / 1000
        if seconds <= self._sealed_within:
            return []
        age = f"{seconds / 3600:,.1f} hours" if seconds >= _HOUR else f"{seconds / 60:.0f} minutes"
        number = (verifier.last_seal.number if verifier.last_seal else 0) + 1
        detail = (
            f"missing checkpoints: none covers the last {verifier.unsealed:,} records, the oldest {age} old ({first});"
        )
        detail += " checkpoints were removed, or no worker with a signing key has run since"
        return [AuditFault(TamperKind.CHECKPOINT, detail, first, checkpoint=number)]

    async def _explain(self, verifier: Verifier) -> list[AuditFault]:
        found: list[AuditFault] = []
        for chain in islice(verifier.suspects, _MAX_DETAILED_FAULTS):
            fault = diagnose_chain(chain, await self._rows_of(chain), self._starts.get(chain, GENESIS))
            found += [fault] if fault is not None else []
        either = {TamperKind.REMOVED, TamperKind.ALTERED}
        if found and verifier.faults and {found[0].kind, verifier.faults[0].kind} == either:
            return [
                *verifier.faults,
                *found,
            ]  # a chain alone can't always tell which; a checkpoint can
        if found and verifier.faults and found[0].kind is TamperKind.ALTERED and _earlier(verifier.faults[0], found[0]):
            return [*verifier.faults, *found]  # a record with a fitting hash, so that the next one does not follow
        return [*found, *verifier.faults]

    async def _check_heads(self, verifier: Verifier) -> list[AuditFault]:
        """Find jobs that name another end of their trail than it has, jobs without a trail, trails without a job."""
        wrong = dict.fromkeys([job_id async for job_id in self._scan_mismatches()])
        if not verifier.stopped:
            wrong |= dict.fromkeys(await self._mismatches_of(verifier.tail))
        if len(wrong) > _MAX_DETAILED_FAULTS:
            wrong = await self._confirmed_mismatches(wrong)
        faults: list[AuditFault] = []
        for job_id in islice(wrong, _MAX_DETAILED_FAULTS):
            fault = await self._inspect_job(job_id)
            faults += [fault] if fault is not None else []
        if len(wrong) > _MAX_DETAILED_FAULTS:
            faults.append(
                AuditFault(
                    TamperKind.CHAIN_HEAD, f"{len(wrong) - _MAX_DETAILED_FAULTS:,} more jobs disagree with their trail"
                )
            )
        if not verifier.stopped:
            faults += await self._without_job([c for c in verifier.open if not c.startswith("app:")])
        return faults

    async def _scan_mismatches(self) -> AsyncIterator[str]:
        """Yield ids of jobs whose last listed record is not what the job names as the end of its chain."""
        cursor = 0
        while True:
            async with store_errors("read the jobs"):
                cursor, names = await self._redis.scan(cursor, match=f"{keys.JOB}*", count=self._pace.jobs)
            ids = [name.decode(errors="replace").removeprefix(keys.JOB) for name in names]
            read = [name for job_id in ids for name in (keys.job(job_id), keys.chain_records(job_id))]
            async with store_errors("compare the trail's ends"):
                for job_id in await self._chain_heads_script(keys=[keys.AUDIT, *read], args=ids):
                    yield job_id.decode(errors="replace")
            await self._pace.rest(0)
            if not cursor:
                return

    async def _confirmed_mismatches(self, suspected: dict[str, None]) -> dict[str, None]:
        """Return those whose trail itself ends elsewhere: the list of their records may be what is wrong."""
        ends: dict[str, str] = {}
        async for rows in self._trail.pages(count=self._pace.records):
            for row in rows:
                chain = chain_of_row(row)
                if chain in suspected:
                    ends[chain] = row.hash
            await self._pace.rest(0)
        return dict.fromkeys(
            await self._mismatches_of(
                {job_id: ends.get(job_id) or self._starts.get(job_id, "") for job_id in suspected}
            )
        )

    async def _mismatches_of(self, tail: dict[str, str]) -> list[str]:
        """Return those of these chains whose job names another end than the one that was read."""
        ids = [chain for chain in tail if not chain.startswith("app:")]
        out: list[str] = []
        for start in range(0, len(ids), self._pace.jobs):
            some = ids[start : start + self._pace.jobs]
            heads = await self._heads(some)
            await self._pace.rest(0)
            out += [one for one, head in zip(some, heads, strict=True) if head is not None and head != tail[one]]
        return out

    async def _heads(self, job_ids: list[str]) -> list[str | None]:
        async with store_errors("read the jobs"), self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(keys.job(job_id), "chain")
            heads = await pipeline_replies(pipe, map(keys.job, job_ids))
        return [head.decode(errors="replace") if head else None for head in heads]

    async def _inspect_job(self, job_id: str) -> AuditFault | None:
        """Inspect one job closely, again while it changes."""
        fault: AuditFault | None = None
        for _ in range(_MAX_PASSES):
            rows = await self._rows_of(job_id)
            try:
                async with store_errors("read the job", keys.job(job_id)):
                    version, head = await self._redis.hmget(keys.job(job_id), "v", "chain")
                async with store_errors("read the audit trail", keys.chain_records(job_id)):
                    await self._redis.llen(keys.chain_records(job_id))
            except RecordUnreadable as error:
                return _unreadable(error, job_id)
            if head is None:
                return None
            if not rows and head.decode(errors="replace") == self._starts.get(job_id):
                return None  # all of it was removed by retention
            fault = diagnose_end(job_id, rows, int(version), head.decode(errors="replace"))
            if fault is None:
                return None
        return fault

    async def _without_job(self, open_chains: list[str]) -> list[AuditFault]:
        faults: list[AuditFault] = []
        for start in range(0, len(open_chains), self._pace.jobs):
            some = open_chains[start : start + self._pace.jobs]
            heads = await self._heads(some)
            await self._pace.rest(0)
            for job_id in (one for one, head in zip(some, heads, strict=True) if head is None):
                try:
                    rows = await self._trail.of_chain(job_id)
                except RecordUnreadable as error:
                    faults += [_unreadable(error, job_id)] if len(faults) < _MAX_DETAILED_FAULTS else []
                    continue
                if len(faults) < _MAX_DETAILED_FAULTS and not (rows and await self._ended(rows)):
                    detail = f"{job_id} never ended by its trail, but is not in Redis"
                    faults.append(
                        AuditFault(TamperKind.INSERTED if not rows else TamperKind.REMOVED, detail, job_id=job_id)
                    )
        return faults

    async def _ended(self, rows: list[AuditRow]) -> bool:
        """Return True when the records include the job's end."""
        verifier = Verifier(self._trusted)
        verifier.feed(rows)
        return bool(verifier.ended)

    async def _rows_of(self, chain: str) -> list[AuditRow]:
        """Find every record of a chain by reading the whole trail: its index may have been tampered with too."""
        mark = b'"job_id":"%b"' % chain.encode()
        found: list[AuditRow] = []
        try:
            async for rows in self._trail.pages(count=self._pace.records):
                found += [row for row in rows if mark in row.record]
                await self._pace.rest(0)
        except ArchiveDamaged:
            return found  # it is named already
        return found

    async def _compare(self, shipped: Iterable[bytes], report: Report) -> list[AuditFault]:
        """Return the first difference between the seals in Redis and those that were shipped."""
        first = await self._seals.first()
        begin = _number(first) if first else 1
        copies, last = iter(shipped), 0
        checker = Verifier(self._trusted, from_any=True)
        while lines := list(islice(copies, 200)):
            checker.add(lines)
            if checker.faults:
                fault = checker.faults[0]
                return [AuditFault(fault.kind, f"in the shipped copy: {fault.detail}", checkpoint=fault.checkpoint)]
            known = [(number, text) for text in lines if (number := parse(text).number) >= begin]
            last = parse(lines[-1]).number
            if not known:
                continue
            async with store_errors("read the seals"):
                here = await self._redis.lrange(keys.SEALS, known[0][0] - begin, known[-1][0] - begin)
            for n, (number, text) in enumerate(known):
                if n >= len(here):
                    detail = f"checkpoint {number} was shipped, but is gone: the trail was cut behind it"
                    return [AuditFault(TamperKind.TRUNCATED, detail, parse(text).last, checkpoint=number)]
                if here[n] != text:
                    detail = f"checkpoint {number} is not the one that was shipped"
                    return [AuditFault(TamperKind.CHECKPOINT, detail, checkpoint=number)]
        report.notes.append(f"compared with the shipped copy up to checkpoint {last}")
        return []


def _unreadable(error: RecordUnreadable, job_id: str | None = None) -> AuditFault:
    """Return the fault of a value that can't be read; names of keys hold no secrets."""
    detail = (
        f"{error}; what stood there may be under vigil:aside:{error.key}: put back what was there, from it or from "
        "a copy of Redis, and verify again; see ops/runbook/RecordsUnreadable.md"
    )
    return AuditFault(TamperKind.UNREADABLE, detail, job_id=job_id)


def _earlier(one: AuditFault, other: AuditFault) -> bool:
    return None not in (one.record, other.record) and stream_id(one.record or "") < stream_id(other.record or "")


def _number(line: bytes) -> int:
    try:
        return parse(line).number
    except BadSeal:
        return 1  # the verifier reports it


def _time(place: str) -> str:
    return iso_ms(datetime.fromtimestamp(stream_id(place)[0] / 1000, UTC))
