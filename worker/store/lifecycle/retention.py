"""Remove audit records that are old enough and not held, and what settled jobs leave behind.

Records go by whole checkpoints, in one script with a signed seal that says so (`audit/seals.py`), so the trail never
looks tampered with. The work grows with what is due.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from arq.connections import ArqRedis

from worker.audit.chain import GENESIS, AuditRow, chain_of_row, stream_id
from worker.audit.keys import Signer
from worker.audit.seals import Seal, extend_kept_chain, parse, retention
from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable
from worker.jobs.ids import is_job_id
from worker.jobs.states import Status
from worker.store import keys
from worker.store.apps import Apps
from worker.store.archive.archive_state import ArchiveStates
from worker.store.archive.attached import archive_of
from worker.store.audit.end_user_rows import EndUserRows, body_of
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.commands import Command
from worker.store.connection import locks
from worker.store.errors import store_errors
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.jobs.search_terms import indexes_of_terms
from worker.store.lifecycle.archive_retention import is_held
from worker.store.lifecycle.legal_holds import LegalHolds
from worker.store.lifecycle.trimming import Trimming
from worker.store.values import pipeline_replies, report_unreadable, valid_members

_MAX_RECORDS_PER_SEAL: Final = 10_000
"""Approximate number of records that one seal removes: a script must not block Redis for long."""
_SEALS_PER_PAGE: Final = 50
_IDS_PER_COMMAND: Final = 500
_LOOK_AGAIN_S: Final = 6 * 3600
KEPT_LONGER: Final = "audit:"
"""Begins the names of apps among the holds of a seal: their own audit time keeps their records, no legal hold."""
_RECHECK_MS: Final = 3_600_000
_MESSAGE_TTL_S: Final = 40 * 86_400  # longer than any schedule of tries
_JOBS_PER_PAGE: Final = 100


@dataclass(slots=True)
class _RetentionPass:
    """What one retention seal will state."""

    kept: int = 0
    kept_head: str = GENESIS
    removed: list[str] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)  # chain -> hash of its last removed record
    counts: dict[str, int] = field(default_factory=dict)  # chain -> how many of its records go now
    complete: bool = True  # all that is due goes in this pass


class Retention:
    """Removes what is older than the retention times."""

    def __init__(self, redis: ArqRedis, clock: Clock, keep: RetentionTimes) -> None:
        """The trail is kept at least as long as its jobs."""
        self._redis, self._clock, self._keep = redis, clock, max(keep.audit, keep.result)
        self._trail, self._seals, self._holds = Trail(redis, clock), Seals(redis), LegalHolds(redis, clock, keep)
        self._end_users, self._apps = EndUserRows(redis, self._trail), Apps(redis, clock)
        self._longest, self._trimming = max(self._keep, keep.audit_max or 0), Trimming(redis, clock)

    async def trim(self, signer: Signer) -> int:
        """Remove due audit records; return how many."""
        total = 0
        while (removed := await self._remove_once(signer)) is not None:
            total += removed
        return total

    async def _remove_once(self, signer: Signer) -> int | None:
        """Remove what one seal can state; return how many records, or None when none is due or another seal came."""
        last = await self._seals.last()  # read first: the rest stays valid if no seal is appended meanwhile
        if last is None:
            return None
        async with store_errors("look for what has expired"):
            notes = (await self._redis.get(keys.NOTE_COUNT) or b"0").decode(errors="replace")
            line = await self._redis.get(keys.RETENTION_SEAL)
        before, edges = parse(line) if line else None, await self._app_edges()
        holds = await self._holds.names() | {KEPT_LONGER + app for app in edges}
        released = before is not None and bool(set(before.body["holds"]) - holds)
        again = released or await self._is_time_to_look_again(before, edges)
        due = [] if again else await self._due()
        checkpoints = [seal for seal in due if seal.kind == "checkpoint"]
        if not checkpoints and not again:
            return None
        upto = checkpoints[-1].last if checkpoints else str(before.body["upto"] if before else "")
        work = await self._select(before, upto, holds, edges, again=again)
        if not due and not released and not work.removed:
            return None
        if not work.complete:
            await self._redis.delete(keys.RETENTION_AGAIN)  # it goes on at once
        through = (due[-1].number, due[-1].hash) if due else (0, "")
        if not due and before is not None:
            through = before.body["through"], before.body["through_hash"]
        seal = retention(
            signer,
            last,
            through,
            upto=upto,
            removed=len(work.removed) + (int(before.body["removed"]) if before else 0),
            heads=await self._continuing_heads(work, dict(before.body["heads"]) if before else {}),
            kept=(work.kept, work.kept_head),
            holds=holds if work.complete or before is None else holds | set(before.body["holds"]),
            at=self._clock.now(),
        )
        if not await self._seals.append(last, seal, self._commands(work, seal, len(due)), notes):
            return None  # another seal or note was appended: the next call sees it
        return len(work.removed)

    async def _due(self) -> list[Seal]:
        """Return the oldest seals whose records are all old enough; none when records leave Redis for the archive."""
        if await self._archived():
            return []
        edge, found, size = to_ms(self._clock.now()) - self._keep * 1000, list[Seal](), 0
        async for lines in self._seals.pages(_SEALS_PER_PAGE):
            for seal in map(parse, lines):
                at = stream_id(seal.last)[0]
                if seal.kind == "retention":
                    at = to_ms(datetime.fromisoformat(str(seal.body["at"])))
                if at >= edge or size >= _MAX_RECORDS_PER_SEAL:
                    return found
                found.append(seal)
                size += int(seal.body.get("count", 0))
        return found

    async def _archived(self) -> bool:
        return archive_of(self._redis) is not None or await ArchiveStates(self._redis).get() is not None

    async def _app_edges(self) -> dict[str, int]:
        """Return the apps that keep their records longer than others, and before which time (ms) theirs are over."""
        now = to_ms(self._clock.now())
        own = {app.name: app.retention.audit or 0 for app in await self._apps.list_apps() if app.retention is not None}
        longer = {app: min(seconds, self._longest) for app, seconds in own.items()}
        return {app: now - seconds * 1000 for app, seconds in longer.items() if seconds > self._keep}

    async def _is_time_to_look_again(self, before: Seal | None, edges: dict[str, int]) -> bool:
        """Return whether some of what was kept for these apps may be over now; True once in some hours."""
        if before is None or not edges or not before.body["kept"]["count"]:
            return False
        return await locks.try_lock(self._redis, keys.RETENTION_AGAIN, _LOOK_AGAIN_S)

    async def _select(
        self, before: Seal | None, upto: str, holds: set[str], edges: dict[str, int], *, again: bool
    ) -> _RetentionPass:
        """Select what is removed and what is kept; `again`: also from what earlier passes kept under a hold."""
        work, low = _RetentionPass(), "-"
        if before is not None and not again:
            work.kept, work.kept_head = int(before.body["kept"]["count"]), str(before.body["kept"]["head"])
            low = f"({before.body['upto']}"
        async for rows in self._trail.pages(low, upto):
            of_held_users = await self._end_users.held(rows, holds)
            for row in rows:
                held = row.id in of_held_users or is_held(row, holds) or _is_kept_longer(row, edges)
                if held or (again and len(work.removed) >= _MAX_RECORDS_PER_SEAL):
                    work.complete &= held
                    work.kept, work.kept_head = work.kept + 1, extend_kept_chain(work.kept_head, row)
                    continue
                chain = chain_of_row(row)
                work.removed.append(row.id)
                work.heads[chain] = row.hash
                work.counts[chain] = work.counts.get(chain, 0) + 1
        return work

    async def _continuing_heads(self, work: _RetentionPass, before: dict[str, str]) -> dict[str, str]:
        """Return the ends of the removed parts of chains that have more records, or may get some."""
        heads, out = {**before, **work.heads}, dict[str, str]()
        names = list(heads)
        async with store_errors("read the jobs"), self._redis.pipeline(transaction=False) as pipe:
            for chain in names:
                pipe.llen(keys.chain_records(chain))
                pipe.exists(keys.job(chain))
            found = await pipe.execute()
        for chain, records, job in zip(names, found[::2], found[1::2], strict=True):
            if job or records > work.counts.get(chain, 0):
                out[chain] = heads[chain]
        return out

    @staticmethod
    def _commands(work: _RetentionPass, seal: Seal, seals: int) -> list[Command]:
        commands: list[Command] = [("SET", keys.RETENTION_SEAL, seal.line)]
        gone = work.removed
        commands += [
            ("XDEL", keys.AUDIT, *gone[n : n + _IDS_PER_COMMAND]) for n in range(0, len(gone), _IDS_PER_COMMAND)
        ]
        commands += [("LTRIM", keys.chain_records(chain), count, -1) for chain, count in work.counts.items()]
        if seals:
            commands.append(("LTRIM", keys.SEALS, seals, -1))
        return commands

    async def clear(self) -> int:
        """Remove what expired jobs leave in indexes, and let their messages expire; return how many jobs."""
        done = 0
        async for ids in self._expired_jobs():
            for job_id in ids:
                async with store_errors("read the job"):
                    exists = await self._redis.exists(keys.job(job_id))
                    if exists:  # held, or not expired by the clock of Redis
                        await self._redis.zadd(keys.SETTLED, {job_id: to_ms(self._clock.now()) + _RECHECK_MS})
                        continue
                await self._clear_job(job_id)
                done += 1
        return done

    async def _expired_jobs(self) -> AsyncIterator[Sequence[str]]:
        edge = to_ms(self._clock.now())
        while True:
            async with store_errors("look for what has expired"):
                rows = await self._redis.zrangebyscore(keys.SETTLED, "-inf", edge, start=0, num=_JOBS_PER_PAGE)
            if not rows:
                return
            yield await valid_members(self._redis, keys.SETTLED, rows, is_job_id)

    async def _clear_job(self, job_id: str) -> None:
        async with store_errors("read what a job left"):
            names = [keys.chain_records(job_id), keys.messages(job_id), keys.endpoint_messages(job_id)]
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.lrange(names[0], 0, 0)
                for name in names[1:]:
                    pipe.lrange(name, 0, -1)
                places, *found = [row or [] for row in await pipeline_replies(pipe, names)]
            messages = [raw.decode(errors="replace") for row in found for raw in row]
        rows = await self._trail.records_at([place.decode(errors="replace") for place in places])
        app = _app_of(rows)
        async with store_errors("read what a job left", keys.terms(app)):
            terms = await self._redis.hget(keys.terms(app), job_id)
        async with store_errors("remove what a job left"), self._redis.pipeline(transaction=True) as pipe:
            for name in (*_indexes(rows), *indexes_of_terms(app, terms)):
                pipe.zrem(name, job_id)
            pipe.hdel(keys.terms(app), job_id)
            for one in messages:
                for name in (keys.message(one), keys.body(one), keys.tries(one)):
                    pipe.expire(name, _MESSAGE_TTL_S, nx=True)
            for name in (keys.messages(job_id), keys.endpoint_messages(job_id), keys.streamed_chunks(job_id)):
                pipe.expire(name, _MESSAGE_TTL_S, nx=True)
            pipe.zrem(keys.SETTLED, job_id)
            await pipe.execute()
        await self._trimming.remove_job(job_id)


def _is_kept_longer(row: AuditRow, edges: dict[str, int]) -> bool:
    """Return whether the record's app keeps its records longer than others, and this one is not over yet."""
    if not edges:
        return False
    body = body_of(row)
    edge = edges.get(str(body.get("app"))) if body is not None else None
    return edge is not None and stream_id(row.id)[0] >= edge


def _app_of(rows: Sequence[AuditRow]) -> str:
    """Return the app of a job by its first audit record, or "" if that can't be read."""
    try:
        return str(json.loads(rows[0].record)["app"])
    except (ValueError, LookupError, TypeError):
        return ""


def _indexes(rows: Sequence[AuditRow]) -> list[str]:
    """Return the indexes that hold a job, by its first audit record."""
    if not rows:
        return []
    try:
        first = json.loads(rows[0].record)
        app, person = str(first["app"]), first["data"].get("safety_identifier")
        names = [keys.index(app), keys.index(app, "model", str(first["requested_model"]))]
    except (ValueError, LookupError, TypeError, AttributeError):  # lists skip what is gone
        report_unreadable(RecordUnreadable(keys.AUDIT, "not_json"))
        return []
    names += [keys.index(app, "status", status) for status in Status]
    return [*names, keys.index(app, "user", person)] if person else names
