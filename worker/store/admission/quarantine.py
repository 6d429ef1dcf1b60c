"""Quarantine: end users whose jobs are not sent, and the ledger of checks, blocks and warnings that leads there.

Everything is under the safety identifier and content-free; only the app's own name of the person is kept, sealed. A
block that is one too many shuts out in its own commit, and the submit script refuses whoever stands here, so a submit
is refused, or in the app's index when the waiting jobs are cancelled. Must not know: HTTP, why the provider blocks.
"""

from __future__ import annotations

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
from worker.store.connection.errors import store_errors
from worker.store.connection.job_keys import require_object
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.envelope import PRIVATE
from worker.store.values import count_of, readable, reporting_unreadable, valid_members

Source = Literal["blocks", "provider", "ops"]
BY_VIGIL: Final = "vigil"
LEDGER_TTL_S: Final = 90 * 86_400
"""Seconds that a line of the ledger is kept."""
_LEDGERS: Final = ("checks", "blocks", "warnings")
_MAX_JOBS_READ: Final = 10  # the newest jobs that are asked for the end user's name
_KINDS: Final[tuple[tuple[type[ev.Fact], str], ...]] = ((ev.CheckStarted, "checks"), (ev.Blocked, "blocks"))


@dataclass(frozen=True, slots=True)
class QuarantineLimits:
    """So many blocks within so many seconds shut an end user out; 0 blocks = never by itself."""

    blocks: int = 3
    window: int = 86_400


@dataclass(frozen=True, slots=True)
class QuarantinedUser:
    """An end user who is shut out: of which app, by whom, why, since and until when (ms, 0 = until it is lifted)."""

    app: str
    safety_identifier: str
    source: Source
    reason: str
    by: str
    since_ms: int
    until_ms: int = 0
    name: str | None = None  # as the app calls the person, if that is known; sealed in Redis


def ledger_commands(job: Job, trail: Sequence[ev.Event], limits: QuarantineLimits) -> list[Command]:
    """What the commit of these events adds: lines in the ledger, and the quarantine if this block is one too many."""
    commands: list[Command] = []
    person = job.safety_identifier
    for event in trail if person else ():
        kind = next((name for fact, name in _KINDS if isinstance(event.fact, fact)), None)
        if person is None or kind is None:
            continue
        at, book = to_ms(event.at), keys.ledger(person, kind)
        commands += _ledger_line(book, at, f"{job.id}:{event.seq}")
        if kind == "blocks" and limits.blocks:
            reason = f"{limits.blocks} blocks within {limits.window} s"
            row = json.dumps(asdict(QuarantinedUser(job.app, person, "blocks", reason, BY_VIGIL, at)))
            when = ("WHEN", book, at - limits.window * 1000, limits.blocks)
            commands.append((*when, "HSETNX", keys.QUARANTINE, person, row))
            commands.append((*when, "SADD", keys.CANCELLATION_DUE, person))
    return commands


def _ledger_line(book: str, at: int, what: str) -> list[Command]:
    """One more line in a ledger; written again it stays one."""
    old = at - LEDGER_TTL_S * 1000
    return [("ZADD", book, at, what), ("ZREMRANGEBYSCORE", book, "-inf", old), ("EXPIRE", book, LEDGER_TTL_S)]


def secret_name(person: str) -> str:
    """Where the name of a person lies, for the keyring."""
    return f"end_user:{person}"


def must_not_be_quarantined(job: Job, trail: Sequence[ev.Event]) -> str:
    """The end user who must not be shut out when these events are committed: a worker that has just taken the job up
    is about to call the model. "" = nobody; what runs goes on.
    """
    kinds = {type(event.fact) for event in trail}
    calls = ev.AttemptStarted in kinds and not kinds.isdisjoint({ev.Started, ev.Rescued})
    return job.safety_identifier or "" if calls else ""


class Quarantine:
    """All that is done with the quarantine in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._swap: Any = script(redis, "lifecycle/compare_and_set")

    async def add(
        self, app: str, person: str, *, by: str, reason: str, until: datetime | None = None, name: str | None = None
    ) -> QuarantinedUser:
        """An operator shuts the app's end user out from now on, whatever stood here before."""
        ends = 0 if until is None else to_ms(until)
        made = QuarantinedUser(app, person, "ops", reason, by, to_ms(self._clock.now()), ends, name)
        async with store_errors("shut the end user out"), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.QUARANTINE, person, self._dump(made))
            pipe.sadd(keys.CANCELLATION_DUE, person)
            await pipe.execute()
        return made

    async def add_by_provider(self, app: str, person: str, at: datetime, reason: str) -> bool:
        """The provider has shut this end user out, at a time of its own; True when that is news.

        A notice from before the last lift is an old one, however often it is delivered: it changes nothing.
        """
        row = QuarantinedUser(app, person, "provider", reason, "provider", to_ms(self._clock.now()))
        async with store_errors("shut the end user out"):
            lifted = count_of(await self._redis.hget(keys.LIFTED, person))
            if lifted is not None and to_ms(at) <= lifted:
                return False
            stands = await self._redis.hget(keys.QUARANTINE, person)
            async with self._redis.pipeline(transaction=True) as pipe:
                row_of_it = self._readable(stands) if stands is not None else None
                if row_of_it is not None and self._is_over(row_of_it):
                    pipe.hset(keys.QUARANTINE, person, self._dump(row))
                    pipe.sadd(keys.CANCELLATION_DUE, person)
                    await pipe.execute()
                    return True
                pipe.hsetnx(keys.QUARANTINE, person, json.dumps(asdict(row)))
                pipe.sadd(keys.CANCELLATION_DUE, person)
                news, _ = await pipe.execute()
        return bool(news)

    async def lift(self, app: str, person: str) -> QuarantinedUser | None:
        """The end user may submit again, and the blocks so far no longer count; None when none of the app was here."""
        found = await self.find(app, person)
        if found is None:
            return None
        async with store_errors("lift the quarantine"), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(keys.LIFTED, person, to_ms(self._clock.now()))
            pipe.hdel(keys.QUARANTINE, person)
            pipe.delete(keys.ledger(person, "blocks"))
            pipe.srem(keys.CANCELLATION_DUE, person)
            await pipe.execute()
        return found

    async def find(self, app: str, person: str) -> QuarantinedUser | None:
        """The app's end user, if shut out now."""
        async with store_errors("look into the quarantine", keys.QUARANTINE):
            raw = await self._redis.hget(keys.QUARANTINE, person)
        found = self._readable(raw) if raw else None
        if raw and found is None and await self._belongs_to(app, person):
            return QuarantinedUser(
                app, person, "ops", "", "", 0
            )  # it can't be read: the person stays out until this is lifted
        if found is None or found.app != app or self._is_over(found):
            return None
        return await self._with_name(found, raw)

    async def of_app(self, app: str) -> list[QuarantinedUser]:
        """The app's end users who are shut out now, the newest first."""
        kept = list[bytes]()
        with reporting_unreadable():
            async with store_errors("list the quarantine", keys.QUARANTINE):
                kept = await self._redis.hvals(keys.QUARANTINE)
        rows = [(one, raw) for raw in kept if (one := self._readable(raw)) is not None]
        found = [await self._with_name(one, raw) for one, raw in rows if one.app == app and not self._is_over(one)]
        return sorted(found, key=lambda one: (-one.since_ms, one.safety_identifier))

    async def counts(self, person: str, window: int) -> dict[str, int]:
        """Checks, blocks and warnings of an end user within the last `window` seconds."""
        since = to_ms(self._clock.now()) - window * 1000
        async with store_errors("read the ledger"), self._redis.pipeline(transaction=False) as pipe:
            for kind in _LEDGERS:
                pipe.zcount(keys.ledger(person, kind), since, "+inf")
            found = await pipe.execute()
        return {kind: int(count) for kind, count in zip(_LEDGERS, found, strict=True)}

    async def record_warning(self, person: str, notice_id: str, at: datetime) -> None:
        """The provider has warned of this end user: a line in the ledger, once for each notice."""
        async with store_errors("note a warning"), self._redis.pipeline(transaction=True) as pipe:
            for command in _ledger_line(keys.ledger(person, "warnings"), to_ms(at), notice_id):
                pipe.execute_command(*command)
            await pipe.execute()

    async def pending_cancellations(self) -> list[tuple[str, list[str]]]:
        """(safety identifier, ids of jobs that wait) of everybody whose waiting jobs are still to be cancelled."""
        out: list[tuple[str, list[str]]] = []
        async with store_errors("look into the quarantine"):
            for person in await valid_members(
                self._redis, keys.CANCELLATION_DUE, await self._redis.smembers(keys.CANCELLATION_DUE), kind="set"
            ):
                raw = await self._redis.hget(keys.QUARANTINE, person)
                one = self._readable(raw) if raw else None
                app = (await self._with_name(one, raw)).app if one is not None else ""
                waiting: list[str] = []
                for status in ("queued", "scheduled"):
                    index = [keys.index(app, "user", person), keys.index(app, "status", status)]
                    waiting += [name.decode(errors="replace") for name in await self._redis.zinter(index)]
                out.append((person, waiting))
        return out

    async def mark_cancelled(self, person: str) -> None:
        """Nothing of this end user waits any more."""
        async with store_errors("note what was cancelled"):
            await self._redis.srem(keys.CANCELLATION_DUE, person)

    async def _with_name(self, one: QuarantinedUser, raw: bytes) -> QuarantinedUser:
        """With the app's own name of the person. A block and the provider know none: the newest job that has it still
        tells, and it is kept from then on. Nobody asks for a name but operators, so the commit of a block needs none.
        """
        if one.name is not None:
            return one
        person = one.safety_identifier
        async with store_errors("look for the end user's name"):
            newest = await self._redis.zrevrange(keys.index(one.app, "user", person), 0, _MAX_JOBS_READ - 1)
            for job_id in newest:
                name = await self._name_in(one.app, job_id.decode(errors="replace"))
                if name is not None:
                    named = replace(one, name=name)
                    await self._swap(keys=[keys.QUARANTINE], args=[person, raw, self._dump(named)])
                    return named
        return one

    async def _name_in(self, app: str, job_id: str) -> str | None:
        try:
            async with store_errors("look for the end user's name", keys.job(job_id)):
                private = await self._redis.hget(keys.job(job_id), "priv")
            body = require_object(job_id, PRIVATE, self._keyring.open(app, job_id, PRIVATE, private)[1]) or {}
        except (KeyMissing, ContentDamaged, RecordUnreadable):
            return None
        name = body.get("end_user")
        return name if isinstance(name, str) else None

    def _dump(self, one: QuarantinedUser) -> str:
        sealed = None if one.name is None else self._keyring.seal_text(secret_name(one.safety_identifier), one.name)
        return json.dumps(asdict(replace(one, name=sealed)))

    def _is_over(self, one: QuarantinedUser) -> bool:
        return 0 < one.until_ms <= to_ms(self._clock.now())

    async def _belongs_to(self, app: str, person: str) -> bool:
        """True when the person has submitted jobs of this app: the row itself can't say whose it is."""
        async with store_errors("look for the end user's jobs", keys.index(app, "user", person)):
            return bool(await self._redis.exists(keys.index(app, "user", person)))

    def _readable(self, raw: bytes) -> QuarantinedUser | None:
        return next((one for _, one in readable([(keys.QUARANTINE, raw)], self._load)), None)

    def _load(self, raw: bytes) -> QuarantinedUser:
        body: dict[str, Any] = json.loads(raw)
        if not all(isinstance(body.get(name), int) for name in ("since_ms", "until_ms")):
            raise ValueError("not a row of the quarantine")
        if body["name"] is not None:
            try:
                body["name"] = self._keyring.unseal_text(secret_name(body["safety_identifier"]), body["name"])
            except (KeyMissing, ContentDamaged, ValueError):  # ValueError: a plain name that looks like a sealed one
                body["name"] = None
        return QuarantinedUser(**body)
