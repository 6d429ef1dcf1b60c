"""Quarantine end users, renew and lift quarantines, and let those end whose time is over.

The submit script refuses quarantined end users: so a submit is either refused, or in the app's index when the waiting
jobs are cancelled. What a person does is written together with its audit record; what a commit did is noted by the next
sweep (`ledger_entries.py` has its commands).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock, from_ms, to_ms
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, Refused
from worker.store import keys
from worker.store.audit.noted_changes import Guard, NotedChanges
from worker.store.commands import Command
from worker.store.connection.job_keys import require_object
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.end_users.ledger_entries import LEDGERS, flag, ledger_entry
from worker.store.end_users.quarantine_ends import end_quarantine
from worker.store.end_users.quarantine_rows import (
    LogAct,
    LogEntry,
    QuarantinedUser,
    dump_row,
    load_log,
    load_row,
    remove_commands,
    secret_name,
    set_commands,
)
from worker.store.envelope import PRIVATE
from worker.store.errors import store_errors
from worker.store.values import count_of, needs_newer_release, readable, reporting_unreadable, valid_members

ADDED: Final = "quarantine.added"
LIFTED: Final = "quarantine.lifted"
_ROWS_AT_ONCE: Final = 500  # that are decoded before the event loop serves others
_MAX_JOBS_READ: Final = 10  # the newest jobs, in which the end user's name is looked for
_MAX_PER_SWEEP: Final = 100
_MAX_TRIES: Final = 10
_RETRY_MS: Final = 3_600_000  # until a quarantine is looked at again that can't end
_DAY_MS: Final = 86_400_000
_EARLIER: Final = (
    "The end user is in quarantine for longer than that. Lift it with a reason, or ask for the earlier end expressly: "
    "`shorten`, or `vigil quarantine add --shorten`."
)
_NOTHING: Final[Mapping[str, str]] = {}


class Quarantine:
    """The quarantine in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._swap: Any = script(redis, "lifecycle/compare_and_set")
        self._changes = NotedChanges(redis, clock)

    async def add(
        self,
        app: str,
        end_user: str,
        *,
        by: str,
        reason: str,
        until: datetime | None = None,
        name: str | None = None,
        noted: Mapping[str, str] = _NOTHING,
        shorten: bool = False,
    ) -> QuarantinedUser:
        """Quarantine the app's end user by a person, replacing an earlier row. `noted`: more for the audit record.

        Raises Refused if that would end the one in force earlier, unless `shorten`.
        """
        ends = 0 if until is None else to_ms(until)
        for _ in range(_MAX_TRIES):
            async with store_errors("quarantine the end user", keys.QUARANTINE):
                stored = await self._redis.hget(keys.QUARANTINE, end_user)
            if stored is not None and not shorten and self._would_end_earlier(end_user, stored, ends):
                raise Refused("would_end_earlier", _EARLIER, 409)
            made = QuarantinedUser(app, end_user, "ops", reason, by, to_ms(self._clock.now()), ends, name)
            commands = [*set_commands(self._dump(made), made, "added"), *flag(app, end_user, made.since_ms)]
            guard, data = Guard("field", keys.QUARANTINE, end_user, stored), {**_data(made), **noted}
            if await self._changes.write(ADDED, commands, guard, app=app, by=by, why=reason, data=data) is not None:
                return made
        raise Refused("quarantine_busy", "The quarantine is changing right now; try again.", 409)

    def _would_end_earlier(self, end_user: str, stored: bytes, ends: int) -> bool:
        """Return True when the stored quarantine is in force after `ends`; one that can't be read has no end."""
        current = self._readable(end_user, stored)
        last = 0 if current is None else current.until_ms
        return ends != 0 and (last == 0 or (ends < last and current is not None and not self._is_over(current)))

    async def add_by_provider(self, app: str, end_user: str, at: datetime, reason: str, days: int = 0) -> bool:
        """Quarantine the end user because the provider blocks them since `at`, or renew the quarantine; return True
        when that changed something.

        `days`: how long it lasts, 0 = until it is lifted. A notice from before the last lift changes nothing, however
        often it is delivered.
        """
        now = to_ms(self._clock.now())
        ends = now + days * _DAY_MS if days else 0
        row = QuarantinedUser(app, end_user, "provider", reason, "provider", now, ends)
        for _ in range(_MAX_TRIES):
            async with store_errors("quarantine the end user", keys.QUARANTINE):
                lifted = count_of(await self._redis.hget(keys.LIFTED, end_user))
                stored = await self._redis.hget(keys.QUARANTINE, end_user)
            if lifted is not None and to_ms(at) <= lifted:
                return False
            current = self._readable(end_user, stored) if stored is not None else None
            if stored is not None and (current is None or not self._is_before(current, ends, to_ms(at))):
                return False  # one that can't be read stands
            act: LogAct = "renewed" if current is not None and not self._is_over(current) else "began"
            named = row if current is None else replace(row, name=current.name)
            if current is not None and act == "renewed":
                named = replace(named, newer=current.newer)
            commands = [*set_commands(self._dump(named), named, act), *flag(app, end_user, now)]
            guard = Guard("field", keys.QUARANTINE, end_user, stored)
            noted = await self._changes.write(ADDED, commands, guard, app=app, by=row.by, why=reason, data=_data(row))
            if noted is not None:
                return True
        return False

    def _is_before(self, current: QuarantinedUser, ends: int, notice_ms: int) -> bool:
        """Return True when a notice of this time extends the quarantine: the same notice again does not."""
        if self._is_over(current):
            return True
        return current.until_ms != 0 and (ends == 0 or ends > current.until_ms) and notice_ms > current.since_ms

    async def lift(
        self, app: str, end_user: str, *, by: str, reason: str, noted: Mapping[str, str] = _NOTHING
    ) -> QuarantinedUser | None:
        """Lift the quarantine and forget the blocks so far; return the lifted row, or None if there was none.

        `noted`: more for the audit record.
        """
        for _ in range(_MAX_TRIES):
            found = await self.find(app, end_user)
            if found is None:
                return None
            async with store_errors("lift the quarantine", keys.QUARANTINE):
                raw = await self._redis.hget(keys.QUARANTINE, end_user)
            now = to_ms(self._clock.now())
            commands: list[Command] = [
                ("HSET", keys.LIFTED, end_user, now),
                ("DEL", keys.ledger(end_user, "blocks"), keys.ledger(end_user, "limits")),
                *remove_commands(end_user, LogEntry(now, "lifted", found.source, by, reason)),
            ]
            guard, data = Guard("field", keys.QUARANTINE, end_user, raw), {"safety_identifier": end_user, **noted}
            if raw and await self._changes.write(LIFTED, commands, guard, app=app, by=by, why=reason, data=data):
                return found
        return None

    async def log(self, end_user: str) -> list[LogEntry]:
        """Return what happened to the end user's quarantine, newest first; check first whose end user it is."""
        rows = list[bytes]()
        with reporting_unreadable():
            async with store_errors("read the log of a quarantine", keys.quarantine_log(end_user)):
                rows = await self._redis.lrange(keys.quarantine_log(end_user), 0, -1)
        return load_log(rows)

    async def end_due(self) -> int:
        """End the quarantines whose time is over, at most a hundred; return how many were looked at."""
        now = to_ms(self._clock.now())
        with reporting_unreadable():
            async with store_errors("look for quarantines that are over", keys.QUARANTINE_ENDS):
                due = await self._redis.zrangebyscore(keys.QUARANTINE_ENDS, "-inf", now, start=0, num=_MAX_PER_SWEEP)
            for end_user in await valid_members(self._redis, keys.QUARANTINE_ENDS, due):
                if not await end_quarantine(self._redis, end_user, self._clock):
                    async with store_errors("end a quarantine", keys.QUARANTINE_ENDS):
                        await self._redis.zadd(keys.QUARANTINE_ENDS, {end_user: now + _RETRY_MS}, xx=True)
            return len(due)
        return 0

    async def note_new(self) -> int:
        """Record in the audit trail the quarantines that commits began or renewed; return how many."""
        count = 0
        async with store_errors("look for new quarantines", keys.UNNOTED_QUARANTINES):
            waiting = list(await self._redis.smembers(keys.UNNOTED_QUARANTINES))[:_MAX_PER_SWEEP]
        for end_user in await valid_members(self._redis, keys.UNNOTED_QUARANTINES, waiting, kind="set"):
            async with store_errors("note a quarantine", keys.QUARANTINE):
                raw = await self._redis.hget(keys.QUARANTINE, end_user)
            one = self._readable(end_user, raw) if raw else None
            done: list[Command] = [("SREM", keys.UNNOTED_QUARANTINES, end_user)]
            if one is None and raw and self._is_newer(end_user, raw):
                continue  # a worker that can read it notes it
            if one is None:
                async with store_errors("note a quarantine", keys.UNNOTED_QUARANTINES):
                    await self._redis.srem(keys.UNNOTED_QUARANTINES, end_user)
                continue
            guard = Guard("member", keys.UNNOTED_QUARANTINES, end_user)
            with contextlib.suppress(Refused):  # the trail of this app is broken; the others' are not
                noted = await self._changes.write(
                    ADDED, done, guard, app=one.app, by=one.by, why=one.reason, data=_data(one)
                )
                count += noted is not None
        return count

    async def index_ends(self) -> None:
        """Enter the ends of rows that a release wrote which did not end them by itself."""
        with reporting_unreadable():
            async with store_errors("look for the ends of quarantines", keys.QUARANTINE):
                for end_user, raw in (await self._redis.hgetall(keys.QUARANTINE)).items():
                    one = self._readable(end_user.decode(errors="replace"), raw)
                    if one is not None and one.until_ms:
                        await self._redis.zadd(keys.QUARANTINE_ENDS, {end_user: one.until_ms}, nx=True)

    async def index_some_ends(self, cursor: int) -> tuple[int, int]:
        """Do what `index_ends` does for some rows; return (where to go on, 0 at the end; how many rows there were)."""
        async with store_errors("look for the ends of quarantines", keys.QUARANTINE):
            after, rows = await self._redis.hscan(keys.QUARANTINE, cursor, count=_ROWS_AT_ONCE)
            read = [self._readable(name.decode(errors="replace"), raw) for name, raw in rows.items()]
            ends = {one.safety_identifier: one.until_ms for one in read if one is not None and one.until_ms}
            if ends:
                await self._redis.zadd(keys.QUARANTINE_ENDS, ends, nx=True)
        return int(after), len(rows)

    async def find(self, app: str, end_user: str) -> QuarantinedUser | None:
        """Return the app's end user if quarantined now, else None."""
        async with store_errors("check the quarantine", keys.QUARANTINE):
            raw = await self._redis.hget(keys.QUARANTINE, end_user)
        found = self._readable(end_user, raw) if raw else None
        if raw and found is None and await self.belongs_to(app, end_user):
            return QuarantinedUser(app, end_user, "ops", "", "", 0)  # unreadable: in force until it is lifted
        if found is None or found.app != app or self._is_over(found):
            return None
        return await self._with_name(found, raw)

    async def of_app(self, app: str) -> list[QuarantinedUser]:
        """Return the app's quarantined end users, newest first."""
        stored = dict[bytes, bytes]()
        with reporting_unreadable():
            async with store_errors("list the quarantine", keys.QUARANTINE):
                stored = await self._redis.hgetall(keys.QUARANTINE)
        rows = list[tuple[QuarantinedUser, bytes]]()
        for number, (name, raw) in enumerate(stored.items(), 1):
            one = self._readable(name.decode(errors="replace"), raw)
            rows += [] if one is None else [(one, raw)]
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        found = [await self._with_name(one, raw) for one, raw in rows if one.app == app and not self._is_over(one)]
        return sorted(found, key=lambda one: (-one.since_ms, one.safety_identifier))

    async def counts(self, end_user: str, window: int) -> dict[str, int]:
        """Count the checks, blocks and warnings of an end user within the last `window` seconds."""
        since = to_ms(self._clock.now()) - window * 1000
        async with store_errors("read the ledger"), self._redis.pipeline(transaction=False) as pipe:
            for kind in LEDGERS:
                pipe.zcount(keys.ledger(end_user, kind), since, "+inf")
            found = await pipe.execute()
        return {kind: int(count) for kind, count in zip(LEDGERS, found, strict=True)}

    async def limits(self, end_user: str, window: int) -> int:
        """Count the blocks of the last `window` seconds by which the provider limited this end user."""
        since = to_ms(self._clock.now()) - window * 1000
        async with store_errors("read the ledger"):
            return int(await self._redis.zcount(keys.ledger(end_user, "limits"), since, "+inf"))

    async def record_warning(self, app: str, end_user: str, notice_id: str, at: datetime) -> None:
        """Record a warning of the provider in the ledger of the app's end user, once for each notice."""
        commands = ledger_entry(keys.ledger(end_user, "warnings"), to_ms(at), notice_id)
        async with store_errors("note a warning"), self._redis.pipeline(transaction=True) as pipe:
            for command in [*commands, *flag(app, end_user, to_ms(at))]:
                pipe.execute_command(*command)
            await pipe.execute()

    async def pending_cancellations(self) -> list[tuple[str, list[str]]]:
        """Return (safety identifier, ids of waiting jobs) of each end user with waiting jobs to be cancelled."""
        out: list[tuple[str, list[str]]] = []
        async with store_errors("check the quarantine"):
            for end_user in await valid_members(
                self._redis, keys.CANCELLATION_DUE, await self._redis.smembers(keys.CANCELLATION_DUE), kind="set"
            ):
                raw = await self._redis.hget(keys.QUARANTINE, end_user)
                one = self._readable(end_user, raw) if raw else None
                if one is not None and self._is_over(one):
                    continue  # no worker ran in all that time: its jobs go on, once it has ended
                if one is None and raw and self._is_newer(end_user, raw):
                    continue  # a worker that can read it knows whose jobs to cancel
                app = (await self._with_name(one, raw)).app if one is not None else ""
                waiting: list[str] = []
                for status in ("queued", "scheduled"):
                    index = [keys.index(app, "user", end_user), keys.index(app, "status", status)]
                    waiting += [name.decode(errors="replace") for name in await self._redis.zinter(index)]
                out.append((end_user, waiting))
        return out

    async def mark_cancelled(self, end_user: str) -> None:
        """Record that no job of this end user waits any more."""
        async with store_errors("note what was cancelled"):
            await self._redis.srem(keys.CANCELLATION_DUE, end_user)

    async def _with_name(self, one: QuarantinedUser, raw: bytes) -> QuarantinedUser:
        """Add the app's own name of the end user, from the newest job that has it, and store it from then on.

        A quarantine by a block or by the provider comes without it. Only operators ask for it, so the commit of a block
        need not look it up.
        """
        if one.name is not None:
            return one
        name = await self.name_of(one.app, one.safety_identifier)
        if name is None:
            return one
        named = replace(one, name=name)
        async with store_errors("keep the end user's name"):
            await self._swap(keys=[keys.QUARANTINE], args=[one.safety_identifier, raw, self._dump(named)])
        return named

    async def name_of(self, app: str, end_user: str) -> str | None:
        """Return the app's own name of its end user, from the newest job that has it, or None."""
        async with store_errors("look for the end user's name"):
            newest = await self._redis.zrevrange(keys.index(app, "user", end_user), 0, _MAX_JOBS_READ - 1)
        for job_id in newest:
            name = await self._name_in(app, job_id.decode(errors="replace"))
            if name is not None:
                return name
        return None

    async def _name_in(self, app: str, job_id: str) -> str | None:
        try:
            async with store_errors("look for the end user's name", keys.job(job_id)):
                private = await self._redis.hget(keys.job(job_id), "priv")
            body = require_object(job_id, PRIVATE, self._keyring.open(app, job_id, PRIVATE, private)[1]) or {}
        except (KeyMissing, ContentDamaged, RecordUnreadable):
            return None
        name = body.get("end_user")
        return name if isinstance(name, str) else None

    def _dump(self, one: QuarantinedUser) -> bytes:
        sealed = None if one.name is None else self._keyring.seal_text(secret_name(one.safety_identifier), one.name)
        return dump_row(self._keyring.macs, replace(one, name=sealed))

    def _is_over(self, one: QuarantinedUser) -> bool:
        return 0 < one.until_ms <= to_ms(self._clock.now())

    async def belongs_to(self, app: str, end_user: str) -> bool:
        """Return True when the end user has submitted jobs of this app: an unreadable row can't say whose it is."""
        async with store_errors("look for the end user's jobs", keys.index(app, "user", end_user)):
            return bool(await self._redis.exists(keys.index(app, "user", end_user)))

    def _readable(self, end_user: str, raw: bytes) -> QuarantinedUser | None:
        rows = readable([(keys.QUARANTINE, raw)], lambda raw: self._load(end_user, raw))
        return next((one for _, one in rows), None)

    def _is_newer(self, end_user: str, raw: bytes) -> bool:
        return needs_newer_release(keys.QUARANTINE, raw, lambda raw: self._load(end_user, raw))

    def _load(self, end_user: str, raw: bytes) -> QuarantinedUser:
        one = load_row(self._keyring.macs, end_user, raw)
        if one.name is None:
            return one
        try:
            return replace(one, name=self._keyring.unseal_text(secret_name(one.safety_identifier), one.name))
        except (KeyMissing, ContentDamaged, ValueError):  # ValueError: a plain name that looks sealed
            return replace(one, name=None)


def _data(one: QuarantinedUser) -> dict[str, Any]:
    """Return what the audit record of a quarantine that begins holds."""
    until = from_ms(one.until_ms).isoformat() if one.until_ms else None
    return {"safety_identifier": one.safety_identifier, "source": one.source, "until": until}
