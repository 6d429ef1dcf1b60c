"""Pause and resume everything, an app, a model or an end user. Running jobs go on; others are held when claimed.

A claim marks the jobs that a pause stops, so none starts after `pause` has returned; the worker holds them, and
`resume` or the end of the pause makes them fall due at once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from arq.connections import ArqRedis

from worker.clock import Clock, from_ms, to_ms
from worker.jobs.errors import RecordUnreadable
from worker.jobs.record import Job
from worker.jobs.states import PAUSE_SCOPE
from worker.jobs.stored_fields import StoredFields, dump_fields, load_fields
from worker.store import channels, keys
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.errors import store_errors
from worker.store.record_mac import RecordMacs
from worker.store.values import read, report_unreadable, valid_members

Kind = Literal["all", "app", "model", "end_user"]
UNREADABLE: Final = "unreadable"
"""The kind of a stored pause whose scope no job can have."""
PREFIX: Final = PAUSE_SCOPE
_NEVER: Final = 10**13  # ms: a pause without an end


@dataclass(frozen=True, slots=True)
class Pause(StoredFields):
    """A pause: of what (`name`: an app, a model, a safety identifier), by whom, why, since and until when."""

    kind: Kind | Literal["unreadable"]
    name: str
    by: str
    note: str
    since_ms: int
    until_ms: int = _NEVER
    app: str | None = None  # the app of the end user

    @property
    def scope(self) -> str:
        """Return the scope under which jobs are held."""
        return self.name if self.kind == UNREADABLE else scope_of(self.kind, self.name)

    @property
    def since(self) -> datetime:
        """Return when it began."""
        return from_ms(self.since_ms)

    @property
    def until(self) -> datetime | None:
        """Return when it ends by itself; None = never."""
        return None if self.until_ms >= _NEVER else from_ms(self.until_ms)


def scope_of(kind: str, name: str = "") -> str:
    """Return `pause:all`, `pause:app:<name>`, `pause:model:<name>` or `pause:end_user:<safety identifier>`."""
    return PREFIX + (kind if kind == "all" else f"{kind}:{name}")


def scopes_of(job: Job) -> tuple[str, ...]:
    """Return every scope whose pause stops this job, for the claim script; widest first."""
    person = (scope_of("end_user", job.safety_identifier),) if job.safety_identifier else ()
    return (scope_of("all"), scope_of("app", job.app), scope_of("model", job.requested_model), *person)


def pause_of(macs: RecordMacs, reply: bytes, until_ms: int = _NEVER) -> Pause:
    """Decode `<scope> <stored pause>` of a claim; an unreadable pause counts all the same, without a note."""
    scope, _, raw = reply.partition(b" ")
    return _pause(macs, scope, raw, until_ms)


def _pause(macs: RecordMacs, scope: bytes, raw: bytes, until_ms: int) -> Pause:
    """Decode a pause. A scope that no job can have stops none: its pause has the kind UNREADABLE."""
    text = scope.decode(errors="replace")
    kind, _, rest = text.removeprefix(PREFIX).partition(":")
    known: tuple[Kind, ...] = get_args(Kind)
    found = next((one for one in known if one == kind), None)
    if found is None or text != scope_of(found, rest) or bool(rest) == (found == "all"):
        report_unreadable(RecordUnreadable(keys.PAUSES, "wrong_shape"))
        return Pause(UNREADABLE, text, "", "", 0, until_ms)
    try:
        pause = read(keys.pause(text), raw, lambda raw: load_pause(macs, text, raw))
        if pause.scope == text:
            return pause
        report_unreadable(RecordUnreadable(keys.pause(text), "wrong_shape"))
    except RecordUnreadable as error:
        report_unreadable(error)
    return Pause(found, rest, "", "", 0, until_ms)


def load_pause(macs: RecordMacs, scope: str, raw: bytes) -> Pause:
    """Decode a stored pause. Raises RecordUnreadable for one that Vigil did not write, ValueError."""
    body = json.loads(macs.detach(keys.pause(scope), scope, raw))
    pause = load_fields(Pause, body)
    times = (pause.since_ms, pause.until_ms)
    if pause.kind not in get_args(Kind) or not all(0 <= int(n) <= 10 * _NEVER for n in times):
        raise ValueError("not a pause")
    return pause


class Pauses:
    """The pauses in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._macs = redis, clock, keyring_of(redis).macs
        self._resume: Any = script(redis, "admission/resume")

    async def pause(
        self, kind: Kind, name: str, *, by: str, note: str = "", until: datetime | None = None, app: str | None = None
    ) -> Pause:
        """Pause this until `until` or `resume`; an existing pause is replaced."""
        ends = _NEVER if until is None else to_ms(until)
        made = Pause(kind, name, by, note, to_ms(self._clock.now()), ends, app)
        async with store_errors("pause"), self._redis.pipeline(transaction=True) as pipe:
            record = self._macs.attach(made.scope, json.dumps(dump_fields(made), separators=(",", ":")))
            pipe.set(keys.pause(made.scope), record)
            pipe.zadd(keys.PAUSES, {made.scope: ends})
            pipe.sadd(keys.HOLDING_SCOPES, made.scope)
            await pipe.execute()
        return made

    async def resume(self, kind: Kind, name: str = "") -> tuple[bool, int]:
        """End a pause; return whether it was paused, and how many held jobs fall due now."""
        return await self._end(scope_of(kind, name), force=True)

    async def sweep(self) -> None:
        """Let the jobs fall due that pauses hold which have ended."""
        async with store_errors("look for pauses that are over"):
            scopes = await self._redis.smembers(keys.HOLDING_SCOPES)
        for scope in await valid_members(self._redis, keys.HOLDING_SCOPES, scopes, kind="set"):
            await self._end(scope, force=False)

    async def _end(self, scope: str, *, force: bool) -> tuple[bool, int]:
        places = [keys.PAUSES, keys.pause(scope), keys.held_jobs(scope), keys.LATER, keys.HOLDING_SCOPES]
        async with store_errors("resume"):
            was, count = await self._resume(keys=places, args=[scope, int(force), channels.WAKE])
        return bool(was), int(count)

    async def list(self) -> list[Pause]:
        """Return the current pauses, oldest first."""
        async with store_errors("list the pauses", keys.PAUSES):
            now = to_ms(self._clock.now())
            scopes = await self._redis.zrangebyscore(keys.PAUSES, f"({now}", "+inf", withscores=True)
            rows = (
                await self._redis.mget([keys.pause(scope.decode(errors="replace")) for scope, _ in scopes])
                if scopes
                else []
            )
        found = [
            _pause(self._macs, scope, row or b"", int(min(ends, _NEVER)))
            for (scope, ends), row in zip(scopes, rows, strict=True)
        ]
        return sorted(found, key=lambda pause: (pause.since_ms, pause.scope))
