"""Read the ledger of checks, blocks and warnings by app: which end users have entries, and which jobs caused them.

An end user is known by the safety identifier alone, which is made of the app and its own name: it belongs to one app.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable
from worker.store import keys
from worker.store.connection.pool import keyring_of
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.end_users.ledger_entries import LEDGER_TTL_S, LEDGERS
from worker.store.end_users.quarantine_rows import QuarantinedUser, load_row
from worker.store.end_users.score_pages import cursor_of, members_after, position_of
from worker.store.errors import store_errors
from worker.store.values import read, report_unreadable

MAX_ENTRIES: Final = 200
"""The entries of a ledger that are read of one end user."""
_MAX_READ: Final = 1_000  # that one page looks at
_CHUNK: Final = 100
_TIES: Final = 100  # entries of the same millisecond, beyond which a list over all apps may leave some out


State = Literal["quarantined", "near_miss", "free"]
Kind = Literal["checks", "blocks", "warnings"]


@dataclass(frozen=True, slots=True)
class FlaggedEndUser:
    """An end user with entries: counts by kind within the quarantine's window, and of all that the ledger keeps.

    `row`: of the quarantine, without the name. `missing`: of a near miss, how many more blocks would quarantine.
    """

    app: str
    safety_identifier: str
    newest_ms: int
    in_window: dict[str, int]
    in_all: dict[str, int]
    row: QuarantinedUser | None
    missing: int | None

    @property
    def quarantined(self) -> bool:
        """Return whether the end user is in quarantine now."""
        return self.row is not None

    @property
    def state(self) -> State:
        """Return the state: a near miss has blocks in the window, and fewer than quarantine."""
        return "quarantined" if self.quarantined else "free" if self.missing is None else "near_miss"


@dataclass(frozen=True, slots=True)
class EndUserFilter:
    """Which end users are listed: in this state, with an entry of this kind, with an entry since this time (ms)."""

    state: State | None = None
    kind: Kind | None = None
    since_ms: int = 0

    def fits(self, one: FlaggedEndUser) -> bool:
        """Return whether the end user is one of them."""
        right_state = self.state is None or one.state == self.state
        return right_state and (self.kind is None or one.in_all[self.kind] > 0) and one.newest_ms >= self.since_ms


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One entry: when, of which kind, and of which job; a warning has the id of the provider's notice instead."""

    at_ms: int
    kind: Kind
    job_id: str | None
    notice: str | None = None


def merged_end_users(
    pages: Sequence[tuple[list[FlaggedEndUser], str | None]], limit: int
) -> tuple[list[FlaggedEndUser], str | None]:
    """Return (the first of what `over_apps` returned for the same place in several stores, the next cursor).

    A cursor is a place in the order of all end users, so it means the same in every store.
    """
    place = {id(one): (one.newest_ms, f"{one.app} {one.safety_identifier}") for page, _ in pages for one in page}
    rows = sorted((one for page, _ in pages for one in page), key=lambda one: place[id(one)], reverse=True)
    more = len(rows) > limit or any(following is not None for _, following in pages)
    return rows[:limit], cursor_of(place[id(rows[:limit][-1])]) if more and rows else None


class EndUserLedger:
    """The ledgers in Redis, as operators read them."""

    def __init__(self, redis: ArqRedis, clock: Clock, window: int, blocks: int = 3) -> None:
        """`blocks`: how many within `window` seconds quarantine; 0 = no number does."""
        self._redis, self._clock, self._window, self._blocks = redis, clock, window, blocks
        self._macs = keyring_of(redis).macs

    async def flagged(self, app: str, limit: int, offset: int = 0) -> tuple[list[FlaggedEndUser], bool]:
        """Return (up to `limit` of the app's end users, the newest entries first; whether there are more)."""
        index = keys.flagged_end_users(app)
        await set_aside_wrong_types(self._redis, {index: "zset"})
        async with store_errors("list end users", index):
            rows = await self._redis.zrevrange(index, offset, offset + limit, withscores=True)
        people = [(name.decode(errors="replace"), int(score)) for name, score in rows]
        return await self._counted([(app, *one) for one in people[:limit]]), len(people) > limit

    async def page(
        self, app: str, wanted: EndUserFilter, limit: int, cursor: str | None
    ) -> tuple[list[FlaggedEndUser], str | None]:
        """Return (up to `limit` of the app's end users that fit, the newest entries first; the next page's cursor).

        The search is bounded: a page may be short, or empty, and yet have a next one.
        """
        found, after = list[FlaggedEndUser](), position_of(cursor)
        for _ in range(_MAX_READ // _CHUNK):
            rows = await members_after(self._redis, keys.flagged_end_users(app), after, _CHUNK)
            for one in await self._counted([(app, person, at) for at, person in rows]):
                after = one.newest_ms, one.safety_identifier
                if one.newest_ms < wanted.since_ms:
                    return found, None  # all others are older
                if wanted.fits(one):
                    found.append(one)
                    if len(found) == limit:
                        return found, cursor_of(after)
            if len(rows) < _CHUNK:
                return found, None
        return found, None if after is None else cursor_of(after)

    async def over_apps(
        self, apps: Sequence[str], limit: int, cursor: str | None
    ) -> tuple[list[FlaggedEndUser], str | None]:
        """Return (up to `limit` end users of all these apps, the newest entries first; the cursor of the next page)."""
        after = position_of(cursor)
        highest = "+inf" if after is None else after[0]
        async with store_errors("list end users"), self._redis.pipeline(transaction=False) as pipe:
            for app in apps:  # only apps with the newest entries can be on this page
                pipe.zrevrangebyscore(keys.flagged_end_users(app), highest, "-inf", 0, 1, withscores=True)
            tops = await pipe.execute(raise_on_error=False)
        newest = [(int(top[0][1]), app) for app, top in zip(apps, tops, strict=True) if isinstance(top, list) and top]
        chosen = [app for _, app in sorted(newest, reverse=True)[: limit + 1 + _TIES]]
        async with store_errors("list end users"), self._redis.pipeline(transaction=False) as pipe:
            for app in chosen:
                pipe.zrevrangebyscore(
                    keys.flagged_end_users(app), highest, "-inf", 0, limit + 1 + _TIES, withscores=True
                )
            replies = await pipe.execute(raise_on_error=False)
        rows = [
            ((int(score), f"{app} {name.decode(errors='replace')}"), app, name.decode(errors="replace"))
            for app, reply in zip(chosen, replies, strict=True)
            for name, score in (reply if isinstance(reply, list) else ())
        ]
        page = sorted((row for row in rows if after is None or row[0] < after), reverse=True)
        found = await self._counted([(app, person, at) for (at, _), app, person in page[:limit]])
        return found, cursor_of(page[limit - 1][0]) if len(page) > limit else None

    async def of(self, app: str, end_user: str) -> FlaggedEndUser | None:
        """Return the app's end user with counts, or None when the app has no such one."""
        index = keys.flagged_end_users(app)
        await set_aside_wrong_types(self._redis, {index: "zset"})
        async with store_errors("look for an end user", index), self._redis.pipeline(transaction=False) as pipe:
            pipe.zscore(index, end_user)
            pipe.exists(keys.index(app, "user", end_user))
            newest, has_jobs = await pipe.execute()
        (found,) = await self._counted([(app, end_user, int(newest or 0))])
        own_row = found.row is not None and found.row.since_ms > 0  # one that can't be read does not say whose it is
        return found if newest is not None or has_jobs or own_row else None

    async def entries(self, end_user: str) -> list[LedgerEntry]:
        """Return the newest entries of all kinds, newest first; check first whose end user it is."""
        ledgers = {kind: keys.ledger(end_user, kind) for kind in LEDGERS}
        await set_aside_wrong_types(self._redis, dict.fromkeys(ledgers.values(), "zset"))
        async with store_errors("read the ledger"), self._redis.pipeline(transaction=False) as pipe:
            for ledger in ledgers.values():
                pipe.zrevrange(ledger, 0, MAX_ENTRIES - 1, withscores=True)
            replies = await pipe.execute()
        found = [
            _entry(cast("Kind", kind), name.decode(errors="replace"), int(score))
            for kind, rows in zip(ledgers, replies, strict=True)
            for name, score in rows
        ]
        return sorted(found, key=lambda one: (-one.at_ms, one.kind))[:MAX_ENTRIES]

    async def newest_jobs(self, app: str, end_user: str, limit: int) -> tuple[list[str], int]:
        """Return (the ids of the end user's newest jobs that are kept, how many are kept)."""
        index = keys.index(app, "user", end_user)
        async with store_errors("list the end user's jobs", index):
            names = await self._redis.zrevrange(index, 0, limit - 1)
            count = await self._redis.zcard(index)
        return [name.decode(errors="replace") for name in names], int(count)

    async def _counted(self, people: list[tuple[str, str, int]]) -> list[FlaggedEndUser]:
        now, width = to_ms(self._clock.now()), 2 * len(LEDGERS) + 1
        async with store_errors("read the ledger"), self._redis.pipeline(transaction=False) as pipe:
            for _, person, _ in people:
                for seconds in (self._window, LEDGER_TTL_S):
                    for kind in LEDGERS:
                        pipe.zcount(keys.ledger(person, kind), now - seconds * 1000, "+inf")
                pipe.hget(keys.QUARANTINE, person)
            replies = await pipe.execute(raise_on_error=False)
        rows = [replies[at : at + width] for at in range(0, len(replies), width)]
        return [
            self._flagged(app, person, newest, row, now)
            for (app, person, newest), row in zip(people, rows, strict=True)
        ]

    def _flagged(self, app: str, person: str, newest: int, replies: list[Any], now: int) -> FlaggedEndUser:
        in_window = dict(zip(LEDGERS, map(_count, replies), strict=False))
        in_all = dict(zip(LEDGERS, map(_count, replies[len(LEDGERS) :]), strict=False))
        row = self._in_force(app, person, replies[-1], now)
        near = row is None and self._blocks and 0 < in_window["blocks"] < self._blocks
        missing = self._blocks - in_window["blocks"] if near else None
        return FlaggedEndUser(app, person, newest, in_window, in_all, row, missing)

    def _in_force(self, app: str, person: str, raw: object, now: int) -> QuarantinedUser | None:
        """Return the row of the quarantine if it is in force; one that can't be read is, and says nothing."""
        if not isinstance(raw, bytes):
            return None
        try:
            one = read(keys.QUARANTINE, raw, lambda raw: load_row(self._macs, person, raw))
        except RecordUnreadable as error:
            report_unreadable(error)
            return QuarantinedUser(app, person, "ops", "", "", 0)
        if one.app != app or 0 < one.until_ms <= now:
            return None
        return replace(one, name=None)


def _count(reply: object) -> int:
    """Return the number of a reply; 0 for a ledger that can't be read, which a commit sets aside."""
    return reply if isinstance(reply, int) else 0


def _entry(kind: Kind, member: str, at_ms: int) -> LedgerEntry:
    if kind == "warnings":
        return LedgerEntry(at_ms, kind, None, member)
    return LedgerEntry(at_ms, kind, member.rpartition(":")[0])
