"""Read the ledger of checks, blocks and warnings by app: which end users have entries, and which jobs caused them.

An end user is known by the safety identifier alone, which is made of the app and its own name: it belongs to one app.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.store import keys
from worker.store.admission.quarantine import LEDGER_TTL_S, LEDGERS
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.errors import store_errors

MAX_ENTRIES: Final = 200
"""The entries of a ledger that are read of one end user."""


@dataclass(frozen=True, slots=True)
class FlaggedEndUser:
    """An end user with entries: counts by kind within the quarantine's window, and of all that the ledger keeps."""

    safety_identifier: str
    newest_ms: int
    in_window: dict[str, int]
    in_all: dict[str, int]
    quarantined: bool


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One entry: when, of which kind, and of which job; a warning has the id of the provider's notice instead."""

    at_ms: int
    kind: str
    job_id: str | None
    notice: str | None = None


class EndUserLedger:
    """The ledgers in Redis, as operators read them."""

    def __init__(self, redis: ArqRedis, clock: Clock, window: int) -> None:
        """`window`: seconds in which blocks count towards a quarantine."""
        self._redis, self._clock, self._window = redis, clock, window

    async def flagged(self, app: str, limit: int, offset: int = 0) -> tuple[list[FlaggedEndUser], bool]:
        """Return (up to `limit` of the app's end users, the newest entries first; whether there are more)."""
        index = keys.flagged_end_users(app)
        await set_aside_wrong_types(self._redis, {index: "zset"})
        async with store_errors("list end users", index):
            rows = await self._redis.zrevrange(index, offset, offset + limit, withscores=True)
        people = [(name.decode(errors="replace"), int(score)) for name, score in rows]
        return await self._counted(people[:limit]), len(people) > limit

    async def of(self, app: str, end_user: str) -> FlaggedEndUser | None:
        """Return the app's end user with counts, or None when the app has no such one."""
        index = keys.flagged_end_users(app)
        await set_aside_wrong_types(self._redis, {index: "zset"})
        async with store_errors("look for an end user", index), self._redis.pipeline(transaction=False) as pipe:
            pipe.zscore(index, end_user)
            pipe.exists(keys.index(app, "user", end_user))
            newest, has_jobs = await pipe.execute()
        if newest is None and not has_jobs:
            return None
        return (await self._counted([(end_user, int(newest or 0))]))[0]

    async def entries(self, end_user: str) -> list[LedgerEntry]:
        """Return the newest entries of all kinds, newest first; check first whose end user it is."""
        ledgers = {kind: keys.ledger(end_user, kind) for kind in LEDGERS}
        await set_aside_wrong_types(self._redis, dict.fromkeys(ledgers.values(), "zset"))
        async with store_errors("read the ledger"), self._redis.pipeline(transaction=False) as pipe:
            for ledger in ledgers.values():
                pipe.zrevrange(ledger, 0, MAX_ENTRIES - 1, withscores=True)
            replies = await pipe.execute()
        found = [
            _entry(kind, name.decode(errors="replace"), int(score))
            for kind, rows in zip(ledgers, replies, strict=True)
            for name, score in rows
        ]
        return sorted(found, key=lambda one: (-one.at_ms, one.kind))[:MAX_ENTRIES]

    async def _counted(self, people: list[tuple[str, int]]) -> list[FlaggedEndUser]:
        now, width = to_ms(self._clock.now()), 2 * len(LEDGERS) + 1
        async with store_errors("read the ledger"), self._redis.pipeline(transaction=False) as pipe:
            for person, _ in people:
                for seconds in (self._window, LEDGER_TTL_S):
                    for kind in LEDGERS:
                        pipe.zcount(keys.ledger(person, kind), now - seconds * 1000, "+inf")
                pipe.hexists(keys.QUARANTINE, person)
            replies = await pipe.execute(raise_on_error=False)
        rows = [replies[at : at + width] for at in range(0, len(replies), width)]
        return [
            FlaggedEndUser(
                person,
                newest,
                dict(zip(LEDGERS, map(_count, row), strict=False)),
                dict(zip(LEDGERS, map(_count, row[len(LEDGERS) :]), strict=False)),
                row[-1] is not False and bool(row[-1]),
            )
            for (person, newest), row in zip(people, rows, strict=True)
        ]


def _count(reply: object) -> int:
    """Return the number of a reply; 0 for a ledger that can't be read, which a commit sets aside."""
    return reply if isinstance(reply, int) else 0


def _entry(kind: str, member: str, at_ms: int) -> LedgerEntry:
    if kind == "warnings":
        return LedgerEntry(at_ms, kind, None, member)
    return LedgerEntry(at_ms, kind, member.rpartition(":")[0])
