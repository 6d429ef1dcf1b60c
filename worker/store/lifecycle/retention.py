"""What time removes: audit records that are old enough and not held, and what settled jobs leave behind.

Records go by whole checkpoints, in one script with a signed seal that says so (`audit/seals.py`): at no moment does a
trail look tampered with. The work grows with what is due. Must not know: who signs.
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
from worker.store.audit.legal_holds import LegalHolds
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.commands import Command
from worker.store.connection.pool import store_errors
from worker.store.values import members, replies, tell

_MOST: Final = 10_000
"""Records that one seal removes, about: a script must not hold Redis for long."""
_SEALS_AT_ONCE: Final = 50
_WORDS: Final = 500
_LATER: Final = 3_600_000
_MESSAGES: Final = 40 * 86_400  # longer than any schedule of tries
_JOBS_AT_ONCE: Final = 100


@dataclass(slots=True)
class _RetentionPass:
    """What one seal will say."""

    kept: int = 0
    kept_head: str = GENESIS
    removed: list[str] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)  # chain -> hash of its last removed record
    counts: dict[str, int] = field(default_factory=dict)  # chain -> how many of its records go now
    whole: bool = True  # all that is over goes with this round


class Retention:
    """Removes what is over."""

    def __init__(self, redis: ArqRedis, clock: Clock, *, audit_ttl: int, result_ttl: int) -> None:
        """The trail is kept at least as long as its jobs."""
        self._redis, self._clock, self._keep = redis, clock, max(audit_ttl, result_ttl)
        self._trail, self._seals, self._holds = Trail(redis, clock), Seals(redis), LegalHolds(redis, clock, result_ttl)

    async def trim(self, signer: Signer) -> int:
        """How many audit records were removed."""
        total = 0
        while (removed := await self._round(signer)) is not None:
            total += removed
        return total

    async def _round(self, signer: Signer) -> int | None:
        """How many records went; None when nothing is due, or somebody else was at it."""
        last = await self._seals.last()  # first of all: what is read behind it holds if no seal comes between
        if last is None:
            return None
        async with store_errors("look for what is over"):
            acts = (await self._redis.get(keys.ACTS) or b"0").decode(errors="replace")
            line = await self._redis.get(keys.RETAINED)
        before = parse(line) if line else None
        holds = await self._holds.names()
        released = before is not None and bool(set(before.body["holds"]) - holds)
        due = [] if released else await self._due()
        checkpoints = [seal for seal in due if seal.kind == "checkpoint"]
        if not checkpoints and not released:
            return None
        upto = checkpoints[-1].last if checkpoints else str(before.body["upto"] if before else "")
        work = await self._sort(before, upto, holds, again=released)
        through = (due[-1].number, due[-1].hash) if due else (0, "")
        if not due and before is not None:
            through = before.body["through"], before.body["through_hash"]
        seal = retention(
            signer,
            last,
            through,
            upto=upto,
            removed=len(work.removed) + (int(before.body["removed"]) if before else 0),
            heads=await self._going_on(work, dict(before.body["heads"]) if before else {}),
            kept=(work.kept, work.kept_head),
            holds=holds if work.whole or before is None else holds | set(before.body["holds"]),
            at=self._clock.now(),
        )
        if not await self._seals.append(last, seal, self._commands(work, seal, len(due)), acts):
            return None  # somebody sealed or noted something: another round will see
        return len(work.removed)

    async def _due(self) -> list[Seal]:
        """The oldest seals whose records are all old enough."""
        edge, found, size = to_ms(self._clock.now()) - self._keep * 1000, list[Seal](), 0
        async for lines in self._seals.pages(_SEALS_AT_ONCE):
            for seal in map(parse, lines):
                at = stream_id(seal.last)[0]
                if seal.kind == "retention":
                    at = to_ms(datetime.fromisoformat(str(seal.body["at"])))
                if at >= edge or size >= _MOST:
                    return found
                found.append(seal)
                size += int(seal.body.get("count", 0))
        return found

    async def _sort(self, before: Seal | None, upto: str, holds: set[str], *, again: bool) -> _RetentionPass:
        """What goes and what is kept; `again`: also of what earlier rounds kept, because a hold was released."""
        work, low = _RetentionPass(), "-"
        if before is not None and not again:
            work.kept, work.kept_head = int(before.body["kept"]["count"]), str(before.body["kept"]["head"])
            low = f"({before.body['upto']}"
        async for rows in self._trail.pages(low, upto):
            for row in rows:
                if _is_held(row, holds) or (again and len(work.removed) >= _MOST):
                    work.whole &= _is_held(row, holds)
                    work.kept, work.kept_head = work.kept + 1, extend_kept_chain(work.kept_head, row)
                    continue
                chain = chain_of_row(row)
                work.removed.append(row.id)
                work.heads[chain] = row.hash
                work.counts[chain] = work.counts.get(chain, 0) + 1
        return work

    async def _going_on(self, work: _RetentionPass, before: dict[str, str]) -> dict[str, str]:
        """The ends of removed pieces of those chains that have more records, or may get some."""
        heads, out = {**before, **work.heads}, dict[str, str]()
        names = list(heads)
        async with store_errors("look at the jobs"), self._redis.pipeline(transaction=False) as pipe:
            for chain in names:
                pipe.llen(keys.audited(chain))
                pipe.exists(keys.job(chain))
            found = await pipe.execute()
        for chain, records, job in zip(names, found[::2], found[1::2], strict=True):
            if job or records > work.counts.get(chain, 0):
                out[chain] = heads[chain]
        return out

    @staticmethod
    def _commands(work: _RetentionPass, seal: Seal, seals: int) -> list[Command]:
        commands: list[Command] = [("SET", keys.RETAINED, seal.line)]
        gone = work.removed
        commands += [("XDEL", keys.AUDIT, *gone[n : n + _WORDS]) for n in range(0, len(gone), _WORDS)]
        commands += [("LTRIM", keys.audited(chain), count, -1) for chain, count in work.counts.items()]
        if seals:
            commands.append(("LTRIM", keys.SEALS, seals, -1))
        return commands

    async def clear(self) -> int:
        """Settled jobs whose time is over leave no entry in an index and no message without an end; how many."""
        done = 0
        async for ids in self._over():
            for job_id in ids:
                async with store_errors("look at a job"):
                    kept = await self._redis.exists(keys.job(job_id))
                    if kept:  # held, or its time is not over by Redis's clock
                        await self._redis.zadd(keys.SETTLED, {job_id: to_ms(self._clock.now()) + _LATER})
                        continue
                await self._forget(job_id)
                done += 1
        return done

    async def _over(self) -> AsyncIterator[Sequence[str]]:
        edge = to_ms(self._clock.now())
        while True:
            async with store_errors("look for what is over"):
                rows = await self._redis.zrangebyscore(keys.SETTLED, "-inf", edge, start=0, num=_JOBS_AT_ONCE)
            if not rows:
                return
            yield await members(self._redis, keys.SETTLED, rows, is_job_id)

    async def _forget(self, job_id: str) -> None:
        async with store_errors("read what a job left"):
            names = [keys.audited(job_id), keys.messages(job_id), keys.endpoint_messages(job_id)]
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.lrange(names[0], 0, 0)
                for name in names[1:]:
                    pipe.lrange(name, 0, -1)
                places, *found = [row or [] for row in await replies(pipe, names)]
            messages = [raw.decode(errors="replace") for row in found for raw in row]
        rows = await self._trail.at([place.decode(errors="replace") for place in places])
        async with store_errors("clear away what a job left"), self._redis.pipeline(transaction=True) as pipe:
            for name in _indexes(rows):
                pipe.zrem(name, job_id)
            for one in messages:
                for name in (keys.message(one), keys.body(one), keys.tries(one)):
                    pipe.expire(name, _MESSAGES, nx=True)
            for name in (keys.messages(job_id), keys.endpoint_messages(job_id), keys.shown(job_id)):
                pipe.expire(name, _MESSAGES, nx=True)
            pipe.zrem(keys.SETTLED, job_id)
            await pipe.execute()


def _is_held(row: AuditRow, holds: set[str]) -> bool:
    if not holds:
        return False
    try:
        return chain_of_row(row) in holds or f"app:{json.loads(row.record)['app']}" in holds
    except (ValueError, LookupError, TypeError):
        return True  # whose it is can't be read: it may be held


def _indexes(rows: Sequence[AuditRow]) -> list[str]:
    """The indexes in which a job stands, by its first record."""
    if not rows:
        return []
    try:
        first = json.loads(rows[0].record)
        app, person = str(first["app"]), first["data"].get("safety_identifier")
        names = [keys.index(app), keys.index(app, "model", str(first["requested_model"]))]
    except (ValueError, LookupError, TypeError, AttributeError):  # lists leave out what is gone
        tell(RecordUnreadable(keys.AUDIT, "not_json"))
        return []
    names += [keys.index(app, "status", status) for status in Status]
    return [*names, keys.index(app, "user", person)] if person else names
