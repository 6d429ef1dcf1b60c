"""Quarantine end users, and keep the ledger of checks, blocks and warnings that leads to it.

All of it is stored under the safety identifier and without content; only the app's own name of the end user is kept,
sealed. The block that reaches the limit quarantines in its own commit, and the submit script refuses quarantined end
users: so a submit is either refused, or in the app's index when the waiting jobs are cancelled.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import events as ev
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.jobs.record import Job
from worker.store import keys
from worker.store.commands import Command
from worker.store.connection.job_keys import require_object
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.envelope import PRIVATE
from worker.store.errors import store_errors
from worker.store.record_mac import RecordMacs
from worker.store.values import count_of, readable, report_unreadable, reporting_unreadable, valid_members

Source = Literal["blocks", "provider", "ops"]
BY_VIGIL: Final = "vigil"
LEDGER_TTL_S: Final = 90 * 86_400
"""Seconds that an entry of the ledger is kept."""
MAX_FLAGGED: Final = 10_000
"""The end users of an app that are listed for their entries in a ledger: those with the newest ones."""
LEDGERS: Final = ("checks", "blocks", "warnings")
_ROWS_AT_ONCE: Final = 500  # that are decoded before the event loop serves others
_MAX_JOBS_READ: Final = 10  # the newest jobs, in which the end user's name is looked for
_KINDS: Final[tuple[tuple[type[ev.Fact], str], ...]] = ((ev.CheckStarted, "checks"), (ev.Blocked, "blocks"))


@dataclass(frozen=True, slots=True)
class QuarantineLimits:
    """So many blocks within so many seconds quarantine an end user; 0 blocks = never automatically.

    `limited`: seconds of quarantine for an end user whose access the provider limits; 0 = only the ledger knows.
    """

    blocks: int = 3
    window: int = 86_400
    limited: int = 86_400


@dataclass(frozen=True, slots=True)
class QuarantinedUser:
    """A quarantined end user: of which app, by whom, why, since and until when (ms, 0 = until it is lifted)."""

    app: str
    safety_identifier: str
    source: Source
    reason: str
    by: str
    since_ms: int
    until_ms: int = 0
    name: str | None = None  # the app's own name of the end user, if known; sealed in Redis


def ledger_commands(job: Job, trail: Sequence[ev.Event], limits: QuarantineLimits, macs: RecordMacs) -> list[Command]:
    """Return the commands that a commit of these events adds: ledger entries, and the quarantine at the limit."""
    commands: list[Command] = []
    end_user = job.safety_identifier
    for event in trail if end_user else ():
        kind = next((name for fact, name in _KINDS if isinstance(event.fact, fact)), None)
        if end_user is None or kind is None:
            continue
        at, ledger = to_ms(event.at), keys.ledger(end_user, kind)
        commands += _ledger_entry(ledger, at, f"{job.id}:{event.seq}")
        commands += _flag(job.app, end_user, at)
        if kind == "blocks" and limits.blocks:
            reason = f"{limits.blocks} blocks within {limits.window} s"
            row = dump_row(macs, QuarantinedUser(job.app, end_user, "blocks", reason, BY_VIGIL, at))
            when = ("WHEN", ledger, at - limits.window * 1000, limits.blocks)
            commands.append((*when, "HSETNX", keys.QUARANTINE, end_user, row))
            commands.append((*when, "SADD", keys.CANCELLATION_DUE, end_user))
        if isinstance(event.fact, ev.Blocked) and event.fact.block.scope == "end_user":
            commands += _ledger_entry(keys.ledger(end_user, "limits"), at, f"{job.id}:{event.seq}")
            if limits.limited:
                reason = f"limited by the provider ({event.fact.block.code})"
                ends = at + limits.limited * 1000
                limited = QuarantinedUser(job.app, end_user, "provider", reason, "provider", at, ends)
                commands.append(("HSETNX", keys.QUARANTINE, end_user, dump_row(macs, limited)))
                commands.append(("SADD", keys.CANCELLATION_DUE, end_user))
    return commands


def _ledger_entry(ledger: str, at: int, member: str) -> list[Command]:
    """Return the commands that add an entry to a ledger; repeated, it stays one entry."""
    old = at - LEDGER_TTL_S * 1000
    return [("ZADD", ledger, at, member), ("ZREMRANGEBYSCORE", ledger, "-inf", old), ("EXPIRE", ledger, LEDGER_TTL_S)]


def _flag(app: str, end_user: str, at: int) -> list[Command]:
    """Return the commands that list an end user among those of the app with entries in a ledger."""
    flagged, old = keys.flagged_end_users(app), at - LEDGER_TTL_S * 1000
    return [
        ("ZADD", flagged, "GT", at, end_user),
        ("ZREMRANGEBYSCORE", flagged, "-inf", old),
        ("ZREMRANGEBYRANK", flagged, 0, -MAX_FLAGGED - 1),
        ("EXPIRE", flagged, LEDGER_TTL_S),
    ]


def row_name(end_user: str) -> str:
    """Return the name under which an end user's row has its MAC."""
    return f"quarantine:{end_user}"


def dump_row(macs: RecordMacs, one: QuarantinedUser) -> bytes:
    """Encode a row, whose name of the end user is sealed already, as it is stored."""
    return macs.attach(row_name(one.safety_identifier), json.dumps(asdict(one), separators=(",", ":")))


async def end_quarantine(redis: ArqRedis, end_user: str) -> bool:
    """Remove the row of an end user whose quarantine has run out; return False when Vigil did not write that row.

    Then the end user stays quarantined: whoever changed the row may have changed its end.
    """
    async with store_errors("end a quarantine", keys.QUARANTINE):
        raw = await redis.hget(keys.QUARANTINE, end_user)
        if raw is None:
            return True
        try:
            keyring_of(redis).macs.detach(keys.QUARANTINE, row_name(end_user), raw)
        except RecordUnreadable as error:
            report_unreadable(error)
            return False
        await script(redis, "admission/end_quarantine")(keys=[keys.QUARANTINE], args=[end_user, raw])
    return True


def secret_name(end_user: str) -> str:
    """Return the name under which an end user's name is sealed."""
    return f"end_user:{end_user}"


def must_not_be_quarantined(job: Job, trail: Sequence[ev.Event]) -> str:
    """Return the end user who must not be quarantined when these events are committed, or "".

    Only the commit by which a worker begins a claimed job is checked; running jobs go on.
    """
    kinds = {type(event.fact) for event in trail}
    calls = ev.AttemptStarted in kinds and not kinds.isdisjoint({ev.Started, ev.Rescued})
    return job.safety_identifier or "" if calls else ""


class Quarantine:
    """The quarantine in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._swap: Any = script(redis, "lifecycle/compare_and_set")

    async def add(
        self, app: str, end_user: str, *, by: str, reason: str, until: datetime | None = None, name: str | None = None
    ) -> QuarantinedUser:
        """Quarantine the app's end user by an operator, replacing an earlier row."""
        ends = 0 if until is None else to_ms(until)
        made = QuarantinedUser(app, end_user, "ops", reason, by, to_ms(self._clock.now()), ends, name)
        async with store_errors("quarantine the end user"), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.QUARANTINE, end_user, self._dump(made))
            pipe.sadd(keys.CANCELLATION_DUE, end_user)
            for command in _flag(app, end_user, made.since_ms):
                pipe.execute_command(*command)
            await pipe.execute()
        return made

    async def add_by_provider(self, app: str, end_user: str, at: datetime, reason: str) -> bool:
        """Quarantine the end user because the provider blocks them since `at`; return True when that is new.

        A notice from before the last lift changes nothing, however often it is delivered.
        """
        row = QuarantinedUser(app, end_user, "provider", reason, "provider", to_ms(self._clock.now()))
        async with store_errors("quarantine the end user"):
            lifted = count_of(await self._redis.hget(keys.LIFTED, end_user))
            if lifted is not None and to_ms(at) <= lifted:
                return False
            stored = await self._redis.hget(keys.QUARANTINE, end_user)
            async with self._redis.pipeline(transaction=True) as pipe:
                current = self._readable(end_user, stored) if stored is not None else None
                if current is not None and self._is_over(current):
                    pipe.hset(keys.QUARANTINE, end_user, self._dump(row))
                    pipe.sadd(keys.CANCELLATION_DUE, end_user)
                    await pipe.execute()
                    return True
                pipe.hsetnx(keys.QUARANTINE, end_user, self._dump(row))
                pipe.sadd(keys.CANCELLATION_DUE, end_user)
                for command in _flag(app, end_user, row.since_ms):
                    pipe.execute_command(*command)
                new, *_ = await pipe.execute()
        return bool(new)

    async def lift(self, app: str, end_user: str) -> QuarantinedUser | None:
        """Lift the quarantine and forget the blocks so far; return the lifted row, or None if there was none."""
        found = await self.find(app, end_user)
        if found is None:
            return None
        async with store_errors("lift the quarantine"), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.LIFTED, end_user, to_ms(self._clock.now()))
            pipe.hdel(keys.QUARANTINE, end_user)
            pipe.delete(keys.ledger(end_user, "blocks"), keys.ledger(end_user, "limits"))
            pipe.srem(keys.CANCELLATION_DUE, end_user)
            await pipe.execute()
        return found

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
        commands = _ledger_entry(keys.ledger(end_user, "warnings"), to_ms(at), notice_id)
        async with store_errors("note a warning"), self._redis.pipeline(transaction=True) as pipe:
            for command in [*commands, *_flag(app, end_user, to_ms(at))]:
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

    def _load(self, end_user: str, raw: bytes) -> QuarantinedUser:
        body: dict[str, Any] = json.loads(self._keyring.macs.detach(keys.QUARANTINE, row_name(end_user), raw))
        if not all(isinstance(body.get(name), int) for name in ("since_ms", "until_ms")):
            raise ValueError("not a row of the quarantine")
        if body["name"] is not None:
            try:
                body["name"] = self._keyring.unseal_text(secret_name(body["safety_identifier"]), body["name"])
            except (KeyMissing, ContentDamaged, ValueError):  # ValueError: a plain name that looks sealed
                body["name"] = None
        return QuarantinedUser(**body)
