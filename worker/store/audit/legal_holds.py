"""Place and release legal holds: retention removes nothing of a held job, or of any job of a held app.

Who placed one and why is recorded in the audit trail.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow, app_chain
from worker.clock import Clock
from worker.jobs.errors import Refused
from worker.jobs.record import Job
from worker.jobs.timestamps import iso_utc
from worker.store import codec, keys
from worker.store.audit.trail import Trail
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies, readable

_PAGE: Final = 500
_MIN_TTL_S: Final = 60  # seconds that content is kept after a release, if its time was over long ago


class LegalHolds:
    """The holds in Redis. A name is a job's id, or `app:<name>`."""

    def __init__(self, redis: ArqRedis, clock: Clock, result_ttl: int) -> None:
        self._redis, self._clock, self._keep = redis, clock, result_ttl
        self._trail = Trail(redis, clock)

    async def names(self) -> set[str]:
        """Return the names of what is held."""
        async with store_errors("read the holds", keys.LEGAL_HOLDS):
            return {name.decode(errors="replace") for name in await self._redis.smembers(keys.LEGAL_HOLDS)}

    async def describe(self) -> list[dict[str, Any]]:
        """Return every hold with who, why and since when."""
        async with store_errors("read the holds", keys.LEGAL_HOLD_NOTES):
            rows = await self._redis.hgetall(keys.LEGAL_HOLD_NOTES)
        found = [_note(name.decode(errors="replace"), raw) for name, raw in rows.items()]
        return sorted(found, key=lambda row: str(row["since"]))

    async def of_app(self, app: str, limit: int = 200) -> list[dict[str, Any]]:
        """Return what `describe` does for the app itself and for its jobs, the newest `limit` of all holds at most."""
        rows = (await self.describe())[-limit:]
        jobs = [row["name"] for row in rows if not row["name"].startswith("app:")]
        async with store_errors("read the audit trail"), self._redis.pipeline(transaction=False) as pipe:
            for name in jobs:
                pipe.lindex(keys.chain_records(name), 0)
            places = await pipeline_replies(pipe, map(keys.chain_records, jobs))
        records = await self._trail.records_at([place.decode(errors="replace") for place in places if place])
        bodies = [json.loads(row.record) for row in records]
        own = {body["job_id"] for body in bodies if body["app"] == app} | {app_chain(app)}
        return [row for row in rows if row["name"] in own]

    async def place(self, name: str, *, by: str, why: str) -> AuditRow:
        """Place a hold and record it in the trail. Raises Refused when there is nothing to hold, or a hold already."""
        if name in await self.names():
            raise Refused("held_already", f"{name} is held already; `vigil audit holds` says by whom.")
        app, job_id = await self._owner(name)
        row = await self._trail.note("audit.hold", app=app, job_id=job_id, by=by, why=why)
        since = iso_utc(self._clock.now(), "seconds")
        async with store_errors("place a hold"), self._redis.pipeline(transaction=True) as pipe:
            pipe.sadd(keys.LEGAL_HOLDS, name)
            pipe.hset(keys.LEGAL_HOLD_NOTES, name, json.dumps({"by": by, "reason": why, "since": since}))
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

    async def release(self, name: str, *, by: str, why: str) -> AuditRow:
        """Release a hold; what it kept expires when it would have without it. Raises Refused when there is none."""
        is_held = await self.names()
        if name not in is_held:
            raise Refused("not_held", f"{name} is not held.", 404)
        app, job_id = await self._owner(name)
        row = await self._trail.note("audit.release", app=app, job_id=job_id, by=by, why=why)
        async with store_errors("release a hold"), self._redis.pipeline(transaction=True) as pipe:
            pipe.srem(keys.LEGAL_HOLDS, name)
            pipe.hdel(keys.LEGAL_HOLD_NOTES, name)
            await pipe.execute()
        others = is_held - {name}
        async for ids in self._jobs(name):
            await self._restore_expiry([one for one in ids if one not in others], others)
        return row

    async def _restore_expiry(self, ids: list[str], others: set[str]) -> None:
        async with store_errors("read the jobs"), self._redis.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.hget(keys.job(one), "rec")
            rows = await pipeline_replies(pipe, map(keys.job, ids))
        found = [job for _, job in readable(zip(map(keys.job, ids), rows, strict=True), codec.load_job)]
        over = [job for job in found if job.settled and app_chain(job.app) not in others]
        async with store_errors("restore the expiry of what was held"), self._redis.pipeline(transaction=False) as pipe:
            for job in over:
                for name_of_key in _content(job.id):
                    pipe.expire(name_of_key, self._remaining_seconds(job))
                pipe.zadd(keys.content_expiry(job.app), {job.id: 0})  # measured again: it expires after all
            await pipe.execute()

    def _remaining_seconds(self, job: Job) -> int:
        """Return the seconds that are left of a settled job's retention time."""
        ended = job.finished_at or job.created_at
        return max(_MIN_TTL_S, round(self._keep - (self._clock.now() - ended).total_seconds()))

    async def _owner(self, name: str) -> tuple[str, str | None]:
        """Return (app, job id or None) of what is named. Raises Refused when there is no such job."""
        if name.startswith("app:"):
            return name.removeprefix("app:"), None
        rows = await self._trail.of_chain(name)
        if not rows:
            raise Refused("job_not_found", f"There is no audit trail of {name}.", 404)
        return str(json.loads(rows[0].record)["app"]), name

    async def _jobs(self, name: str) -> AsyncIterator[list[str]]:
        if not name.startswith("app:"):
            yield [name]
            return
        start, index = 0, keys.index(name.removeprefix("app:"))
        while True:
            async with store_errors("list the jobs"):
                ids = [
                    raw.decode(errors="replace") for raw in await self._redis.zrange(index, start, start + _PAGE - 1)
                ]
            if not ids:
                return
            yield ids
            start += _PAGE


async def is_held(redis: ArqRedis, app: str, job_id: str) -> bool:
    """Return True while a hold keeps the job or its app: its content must not be deleted."""
    async with store_errors("read the holds", keys.LEGAL_HOLDS):
        return any(await redis.smismember(keys.LEGAL_HOLDS, [job_id, app_chain(app)]))


def _note(name: str, raw: bytes) -> dict[str, Any]:
    """Decode who placed a hold and why; an unreadable note leaves the hold in force."""
    fields = ("by", "reason", "since")
    found = readable([(keys.LEGAL_HOLD_NOTES, raw)], lambda raw: {field: json.loads(raw)[field] for field in fields})
    return {"name": name, **next((note for _, note in found), dict.fromkeys(fields, ""))}


def _content(job_id: str) -> tuple[str, ...]:
    return keys.job(job_id), keys.trail(job_id), keys.job_input(job_id), keys.job_output(job_id)
