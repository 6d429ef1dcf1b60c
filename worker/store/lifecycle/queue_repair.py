"""The queue made whole again after one of its keys was damaged or lost: no waiting job depends on a single key.

Asked for now and then by every worker; each step is harmless when others do the same, and when nothing is wrong it
costs a few questions for each app. Must not know: how a job is run, who damages keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable, Refused
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY, Status
from worker.store import channels, keys
from worker.store.commands import Command
from worker.store.connection.errors import store_errors
from worker.store.connection.lua_scripts import script
from worker.store.jobs.queue import queue_commands
from worker.store.jobs.scripts import Scripts
from worker.store.stats import queue_depth
from worker.store.values import pipeline_replies, report_unreadable

_PAGE: Final = 500
_KEYS_PER_SCAN: Final = 1_000
_WAITING: Final = (Status.QUEUED, Status.SCHEDULED, *sorted(UNDER_WAY))
_SHARED_KEY_TYPES: Final = {
    **dict.fromkeys(
        (keys.READY, keys.LATER, keys.LEASED, keys.RING, keys.DEADLINE, keys.ERASURE_DUE, keys.SETTLED), "zset"
    ),
    **dict.fromkeys((keys.OUTBOX, keys.TARGETS, keys.SENDING, keys.PAUSES, keys.NOTICES, keys.NOTICES_DUE), "zset"),
    **dict.fromkeys((keys.PAUSED_TARGETS, keys.HOLDING_SCOPES, keys.CANCELLATION_DUE, keys.CIRCUITS), "set"),
    **dict.fromkeys(
        (keys.TARGET_FAILURES, keys.WORKERS, keys.QUARANTINE, keys.LIFTED, keys.API_KEYS, keys.RECEIVED_WEBHOOKS),
        "hash",
    ),
    **dict.fromkeys(
        (keys.RING_POSITION, keys.SEND_COUNTER, keys.NOTE_COUNT, keys.ROUTER_LOCK, keys.SEALING_LOCK, keys.ACCESS),
        "string",
    ),
    keys.AUDIT: "stream",
    keys.SEALS: "list",
    keys.ASIDES: "zset",
    keys.LEGAL_HOLD_NOTES: "hash",
}
"""The keys that all share, with their types. Not the legal holds: what can't be read there must stop retention."""


class QueueRepair:
    """What is put right, and told of."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._scripts = redis, clock, Scripts(redis)
        self._types_script: Any = script(redis, "lifecycle/check_types")
        self._requeue_script: Any = script(redis, "lifecycle/requeue_ready")
        self._cursor = 0

    async def repair(self, read: Any) -> int:
        """Keys of a wrong type are out of the way, and every waiting job stands where it will be found.

        `read(job_id)` gives a job's record; how many jobs had been lost.
        """
        async with store_errors("look at the types of keys"):
            for name in await self._types_script(keys=list(_SHARED_KEY_TYPES), args=list(_SHARED_KEY_TYPES.values())):
                report_unreadable(RecordUnreadable(name.decode(), "wrong_type"))
        apps = await queue_depth.apps(self._redis)
        waiting, standing, in_line = await self._count(apps)
        if in_line:
            async for ids in self._ready():
                async with store_errors("put ready jobs in line"):
                    await self._requeue_script(keys=[keys.RING], args=[keys.JOB, keys.app_queue(""), *ids])
        for app in apps:
            await self._repair_indexes(app)
        lost = 0
        if waiting > standing:
            for app in apps:
                async for job_id in self._lost_jobs(app):
                    lost += await self._put_back(job_id, read)
        await self._repair_targets()
        await self._trim_set_aside()
        return lost

    async def _repair_indexes(self, app: str) -> None:
        """The app's own keys are of their types, and its index of all jobs has those of the indexes by status."""
        whole, parts = keys.index(app), [keys.index(app, "status", status) for status in Status]
        own = dict.fromkeys((whole, *parts, keys.app_queue(app)), "zset")
        own |= {keys.endpoints(app): "hash", keys.endpoint_events(app): "set", keys.slots(app): "set"}
        async with store_errors("look at an app's indexes"):
            for name in await self._types_script(keys=list(own), args=list(own.values())):
                report_unreadable(RecordUnreadable(name.decode(errors="replace"), "wrong_type"))
            async with self._redis.pipeline(transaction=True) as pipe:
                for name in (whole, *parts):
                    pipe.zcard(name)
                count, *counts = await pipe.execute()
            if count < sum(counts):
                await self._redis.zunionstore(whole, [whole, *parts], aggregate="MAX")

    async def _count(self, apps: list[str]) -> tuple[int, int, bool]:
        """(jobs that wait or run by their apps' indexes, those that stand in a queue, whether a ready one may stand in
        no line), all at one moment.
        """
        places = [keys.READY, keys.LATER, keys.LEASED]
        lines = [keys.app_queue(app) for app in apps]
        indexes = [keys.index(app, "status", status) for app in apps for status in _WAITING]
        names = [*places, *lines, *indexes]
        async with store_errors("count the queue"), self._redis.pipeline(transaction=True) as pipe:
            for name in names:
                pipe.zcard(name)
            for app in apps:
                pipe.zscore(keys.RING, app)
            found = await pipeline_replies(pipe, [*names, *(keys.RING for _ in apps)])
        counts, ring = [reply or 0 for reply in found[: len(names)]], found[len(names) :]
        filled = counts[3 : 3 + len(lines)]
        turnless = any(count and turn is None for count, turn in zip(filled, ring, strict=True))
        return sum(counts[3 + len(lines) :]), sum(counts[:3]), turnless or counts[0] != sum(filled)

    async def _ready(self) -> AsyncIterator[list[bytes]]:
        start = 0
        while True:
            async with store_errors("read the queue", keys.READY):
                ids = await self._redis.zrange(keys.READY, start, start + _PAGE - 1)
            if not ids:
                return
            yield ids
            start += _PAGE

    async def _lost_jobs(self, app: str) -> AsyncIterator[str]:
        """Jobs of the app that wait or run by its indexes, and stand in no queue."""
        for status in _WAITING:
            name, start = keys.index(app, "status", status), 0
            while True:
                async with store_errors("look for lost jobs", name):
                    ids = await self._redis.zrange(name, start, start + _PAGE - 1)
                    if not ids:
                        break
                    async with self._redis.pipeline(transaction=True) as pipe:
                        for place_of_it in (keys.READY, keys.LATER, keys.LEASED):
                            pipe.zmscore(place_of_it, ids)
                        rows = await pipe.execute()
                for job_id, *scores in zip(ids, *rows, strict=True):
                    if scores == [None, None, None]:
                        yield job_id.decode(errors="replace")
                start += _PAGE

    async def _put_back(self, job_id: str, read: Any) -> bool:
        """The job stands again where its record says; one that ran is taken up as if its worker had died."""
        try:
            job: Job = await read(job_id)
        except (RecordUnreadable, Refused):
            return False
        if job.settled:
            return False
        commands: list[Command] = [
            *queue_commands(None, job),
            ("ZADD", keys.RING, "NX", 0, job.app),
            ("PUBLISH", channels.WAKE, "1"),
        ]
        if job.status in UNDER_WAY:
            commands.append(("ZADD", keys.LEASED, to_ms(self._clock.now()) - 1, job.id))
        async with store_errors("put a job back"):
            commit_id = self._clock.dice(16).hex()
            return await self._scripts.commit(job_id, job.version, "", commit_id, commands) == "OK"

    async def _repair_targets(self) -> None:
        """Targets with messages in their queue are looked at: a part of all keys each time."""
        async with store_errors("look for queues of messages", keys.TARGETS):
            self._cursor, found = await self._redis.scan(
                self._cursor, match=keys.TARGET_QUEUE + "*", count=_KEYS_PER_SCAN
            )
            due = {name.decode(errors="replace").removeprefix(keys.TARGET_QUEUE): 0 for name in found}
            if due:
                await self._redis.zadd(keys.TARGETS, due, nx=True)

    async def _trim_set_aside(self) -> None:
        async with store_errors("forget what was set aside"):
            edge = to_ms(self._clock.now()) - keys.ASIDE_SECONDS * 1000
            await self._redis.zremrangebyscore(keys.ASIDES, "-inf", edge)
