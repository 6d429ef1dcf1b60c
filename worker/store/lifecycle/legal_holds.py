"""Place and release legal holds: retention removes nothing of a held job, or of any job of a held app or end user.

Who placed one and why is recorded in the audit trail.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow, app_chain
from worker.audit.compare import HOLD, RELEASE
from worker.clock import Clock
from worker.jobs.errors import Refused
from worker.jobs.ids import is_job_id
from worker.jobs.record import Job
from worker.jobs.stored_fields import require_known_schema
from worker.jobs.timestamps import iso_utc
from worker.store import keys
from worker.store.audit.acts import Actor
from worker.store.audit.hold_names import APP, end_user_of, holders_of
from worker.store.audit.trail import Trail
from worker.store.errors import store_errors
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.lifecycle.job_expiry import JobExpiry, ids_of_index
from worker.store.values import pipeline_replies, readable

_NOTHING_MORE: Final = {"person": None, "app": None}  # what an unreadable note says, or one of an earlier release
_MIN_TTL_S: Final = 60  # seconds that content is kept after a release, if its time was over long ago


class LegalHolds:
    """The holds in Redis, by their names (`hold_names.py`)."""

    def __init__(self, redis: ArqRedis, clock: Clock, keep: RetentionTimes) -> None:
        self._redis, self._clock = redis, clock
        self._trail, self._expiry = Trail(redis, clock), JobExpiry(redis, clock, keep)

    async def names(self) -> set[str]:
        """Return the names of what is held."""
        async with store_errors("read the holds", keys.LEGAL_HOLDS):
            return {name.decode(errors="replace") for name in await self._redis.smembers(keys.LEGAL_HOLDS)}

    async def describe(self) -> list[dict[str, Any]]:
        """Return every hold with who, why and since when."""
        async with store_errors("read the holds", keys.LEGAL_HOLD_NOTES):
            rows = await self._redis.hgetall(keys.LEGAL_HOLD_NOTES)
        found = [_note(name.decode(errors="replace"), raw) for name, raw in rows.items()]
        return sorted(found, key=lambda row: (str(row["since"]), row["name"]))

    async def of_app(self, app: str) -> list[dict[str, Any]]:
        """Return what `describe` does, for the app, its jobs and its end users only."""
        rows = await self.describe()
        unknown = [row["name"] for row in rows if row["app"] is None and is_job_id(row["name"])]
        async with store_errors("read the audit trail"), self._redis.pipeline(transaction=False) as pipe:
            for name in unknown:  # an earlier release placed it
                pipe.lindex(keys.chain_records(name), 0)
            places = await pipeline_replies(pipe, map(keys.chain_records, unknown))
        records = await self._trail.records_at([place.decode(errors="replace") for place in places if place])
        bodies = [json.loads(row.record) for row in records]
        own = {body["job_id"] for body in bodies if body["app"] == app} | {app_chain(app)}
        return [row for row in rows if row["app"] == app or row["name"] in own]

    async def place(self, name: str, *, actor: Actor, why: str) -> AuditRow:
        """Place a hold and record it in the trail. Raises Refused when there is nothing to hold, or a hold already.

        Jobs that come later are held too; when it returns, nothing of those before expires any more.
        """
        if name in await self.names():
            raise Refused("held_already", f"{name} is held already; `vigil audit holds` says by whom.")
        app, _ = await self._owner(name)
        row = await self._note(HOLD, name, actor, why)
        note = {"by": actor.by, "reason": why, "since": iso_utc(self._clock.now(), "seconds"), "app": app}
        note |= {"person": actor.person} if actor.person else {}
        async with store_errors("place a hold"), self._redis.pipeline(transaction=True) as pipe:
            pipe.sadd(keys.LEGAL_HOLDS, name)
            pipe.hset(keys.LEGAL_HOLD_NOTES, name, json.dumps(note))
            await pipe.execute()
        async for ids in self._jobs(name):
            async with (
                store_errors("remove the expiry of what is held"),
                self._redis.pipeline(transaction=False) as pipe,
            ):
                for one in ids:
                    for name_of_key in _content(one):
                        pipe.persist(name_of_key)
                await pipe.execute()
        return row

    async def release(self, name: str, *, actor: Actor, why: str) -> AuditRow:
        """Release a hold; what it kept expires when it would have without it. Raises Refused when there is none."""
        if name not in await self.names():
            raise Refused("not_held", f"{name} is not held.", 404)
        row = await self._note(RELEASE, name, actor, why)
        async with store_errors("release a hold"), self._redis.pipeline(transaction=True) as pipe:
            pipe.srem(keys.LEGAL_HOLDS, name)
            pipe.hdel(keys.LEGAL_HOLD_NOTES, name)
            await pipe.execute()
        async for ids in self._jobs(name):
            await self._expiry.set(ids, least=_MIN_TTL_S)
        return row

    async def _note(self, act: str, name: str, actor: Actor, why: str) -> AuditRow:
        app, job_id = await self._owner(name)
        found = end_user_of(name)
        whom = {"safety_identifier": found[1]} if found is not None else {}
        return await self._trail.note(act, app=app, job_id=job_id, by=actor.by, why=why, **whom, **actor.noted())

    async def _owner(self, name: str) -> tuple[str, str | None]:
        """Return (app, job id or None) of what is named. Raises Refused when there is no such job."""
        if name.startswith(APP):
            return name.removeprefix(APP), None
        if (found := end_user_of(name)) is not None:
            return found[0], None
        rows = await self._trail.of_chain(name)
        if not rows:
            raise Refused("job_not_found", f"There is no audit trail of {name}.", 404)
        return str(json.loads(rows[0].record)["app"]), name

    async def _jobs(self, name: str) -> AsyncIterator[list[str]]:
        found = end_user_of(name)
        if found is None and not name.startswith(APP):
            yield [name]
            return
        index = keys.index(found[0], "user", found[1]) if found else keys.index(name.removeprefix(APP))
        async for ids in ids_of_index(self._redis, index):
            yield ids


async def is_held(redis: ArqRedis, job: Job) -> bool:
    """Return True while a hold keeps the job, its app or its end user: its content must not be deleted."""
    async with store_errors("read the holds", keys.LEGAL_HOLDS):
        return any(await redis.smismember(keys.LEGAL_HOLDS, list(holders_of(job))))


def _note(name: str, raw: bytes) -> dict[str, Any]:
    """Decode who placed a hold and why; an unreadable note leaves the hold in force."""
    fields = ("by", "reason", "since")
    found = readable([(keys.LEGAL_HOLD_NOTES, raw)], lambda raw: _fields(json.loads(raw), fields))
    return {"name": name, **next((note for _, note in found), dict.fromkeys(fields, "") | _NOTHING_MORE)}


def _fields(note: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    require_known_schema(note)
    return {**{field: note[field] for field in fields}, **{field: note.get(field) for field in _NOTHING_MORE}}


def _content(job_id: str) -> tuple[str, ...]:
    return keys.job(job_id), keys.trail(job_id), keys.job_input(job_id), keys.job_output(job_id)
