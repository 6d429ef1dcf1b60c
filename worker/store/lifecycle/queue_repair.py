"""Repair the queues after one of their keys was damaged or lost: no waiting job depends on a single key.

Every worker does this now and then; concurrent repairs are harmless, and when nothing is wrong one costs a few reads
per app.
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
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.jobs.index_search import rebuild_index_of_all
from worker.store.jobs.queue import queue_commands
from worker.store.jobs.scripts import Scripts
from worker.store.lifecycle.content_recount import ContentRecount
from worker.store.lifecycle.index_repair import IndexRepair
from worker.store.lifecycle.search_backfill import SearchBackfill
from worker.store.stats import queue_depth
from worker.store.values import pipeline_replies, report_unreadable

_PAGE: Final = 500
_KEYS_PER_SCAN: Final = 1_000
_TELL_BACK_MS: Final = 60_000
_WAITING: Final = (Status.QUEUED, Status.SCHEDULED, *sorted(UNDER_WAY))
_SHARED_KEY_TYPES: Final = {
    keys.ASIDES: "zset",  # first: it lists what is set aside of the others
    **dict.fromkeys(
        (keys.READY, keys.LATER, keys.LEASED, keys.RING, keys.DEADLINE, keys.ERASURE_DUE, keys.SETTLED), "zset"
    ),
    **dict.fromkeys((keys.OUTBOX, keys.TARGETS, keys.SENDING, keys.PAUSES, keys.NOTICES, keys.NOTICES_DUE), "zset"),
    **dict.fromkeys((keys.LIMITS, keys.METERS, keys.API_HEARTBEATS, keys.COMPACTION_DUE), "zset"),
    **dict.fromkeys((keys.PAUSED_TARGETS, keys.HOLDING_SCOPES, keys.CANCELLATION_DUE, keys.CIRCUITS), "set"),
    **dict.fromkeys(
        (
            keys.TARGET_FAILURES,
            keys.FAILING_ENDPOINTS,
            keys.WORKERS,
            keys.QUARANTINE,
            keys.LIFTED,
            keys.API_KEYS,
            keys.RECEIVED_WEBHOOKS,
            keys.MIGRATIONS,
        ),
        "hash",
    ),
    **dict.fromkeys(
        (
            keys.RING_POSITION,
            keys.SEND_COUNTER,
            keys.NOTE_COUNT,
            keys.ROUTER_LOCK,
            keys.SEALING_LOCK,
            keys.MIGRATION_LOCK,
            keys.ACCESS,
        ),
        "string",
    ),
    keys.AUDIT: "stream",
    keys.SEALS: "list",
    keys.LEGAL_HOLD_NOTES: "hash",
}
"""The shared keys with their types. Without the legal holds: an unreadable set of holds must stop retention."""


class QueueRepair:
    """Finds and repairs damage, and reports it."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._scripts = redis, clock, Scripts(redis)
        self._types_script: Any = script(redis, "lifecycle/check_types")
        self._requeue_script: Any = script(redis, "lifecycle/requeue_ready")
        self._cursor = 0
        self._indexes, self._content = IndexRepair(redis, clock), ContentRecount(redis)
        self._search = SearchBackfill(redis, clock)
        self._told_until = to_ms(clock.now()) - _TELL_BACK_MS

    async def repair(self, read: Any) -> int:
        """Set aside keys of a wrong type, and put every waiting job into its queue; return how many jobs were lost.

        `read(job_id)` returns a job's record.
        """
        async with store_errors("check the types of keys"):
            for name in await self._types_script(keys=list(_SHARED_KEY_TYPES), args=list(_SHARED_KEY_TYPES.values())):
                report_unreadable(RecordUnreadable(name.decode(), "wrong_type"))
        apps = await queue_depth.apps(self._redis)
        waiting, queued, may_lack_queue = await self._count(apps)
        if may_lack_queue:
            async for ids in self._ready():
                async with store_errors("queue ready jobs"):
                    names = [keys.RING, keys.READY, *(keys.JOB.encode() + job_id for job_id in ids)]
                    await self._requeue_script(keys=names, args=[keys.app_queue(""), *ids])
        for app in apps:
            await self._repair_indexes(app)
        lost = 0
        if waiting > queued:
            for app in apps:
                async for job_id in self._lost_jobs(app):
                    lost += await self._put_back(app, job_id, read)
        await self._repair_targets()
        await self._report_set_aside()
        await self._indexes.proceed()
        await self._content.proceed(apps)
        await self._search.proceed(apps)
        await self._trim_set_aside()
        return lost

    async def _repair_indexes(self, app: str) -> None:
        """Set aside the app's keys of a wrong type, and rebuild its index of all jobs from those by status."""
        all_jobs, by_status = keys.index(app), [keys.index(app, "status", status) for status in Status]
        types = dict.fromkeys((all_jobs, *by_status, keys.app_queue(app)), "zset")
        types |= {keys.endpoints(app): "hash", keys.endpoint_events(app): "set", keys.slots(app): "set"}
        types |= {keys.terms(app): "hash", keys.content_sizes(app): "hash", keys.content_expiry(app): "zset"}
        async with store_errors("check an app's indexes"):
            for name in await self._types_script(keys=list(types), args=list(types.values())):
                report_unreadable(RecordUnreadable(name.decode(errors="replace"), "wrong_type"))
            async with self._redis.pipeline(transaction=True) as pipe:
                for name in (all_jobs, *by_status):
                    pipe.zcard(name)
                count, *counts = await pipe.execute()
            if count < sum(counts):
                await rebuild_index_of_all(self._redis, app)

    async def _count(self, apps: list[str]) -> tuple[int, int, bool]:
        """Count, at one moment, the unsettled jobs by the apps' indexes and those in a queue.

        The third value says whether a ready job may be missing in its app's queue, or an app in the ring.
        """
        queues = [keys.READY, keys.LATER, keys.LEASED]
        app_queues = [keys.app_queue(app) for app in apps]
        indexes = [keys.index(app, "status", status) for app in apps for status in _WAITING]
        names = [*queues, *app_queues, *indexes]
        async with store_errors("count the queue"), self._redis.pipeline(transaction=True) as pipe:
            for name in names:
                pipe.zcard(name)
            for app in apps:
                pipe.zscore(keys.RING, app)
            found = await pipeline_replies(pipe, [*names, *(keys.RING for _ in apps)])
        counts, ring = [reply or 0 for reply in found[: len(names)]], found[len(names) :]
        lengths = counts[3 : 3 + len(app_queues)]
        not_in_ring = any(count and score is None for count, score in zip(lengths, ring, strict=True))
        return sum(counts[3 + len(app_queues) :]), sum(counts[:3]), not_in_ring or counts[0] != sum(lengths)

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
        """Yield unsettled jobs of the app, by its indexes, that are in no queue."""
        for status in _WAITING:
            name, start = keys.index(app, "status", status), 0
            while True:
                async with store_errors("look for lost jobs", name):
                    ids = await self._redis.zrange(name, start, start + _PAGE - 1)
                    if not ids:
                        break
                    async with self._redis.pipeline(transaction=True) as pipe:
                        for queue in (keys.READY, keys.LATER, keys.LEASED):
                            pipe.zmscore(queue, ids)
                        rows = await pipe.execute()
                for job_id, *scores in zip(ids, *rows, strict=True):
                    if scores == [None, None, None]:
                        yield job_id.decode(errors="replace")
                start += _PAGE

    async def _put_back(self, app: str, job_id: str, read: Any) -> bool:
        """Put the job into the queue of its status; a running one is claimed again as if its worker had died.

        One of which nothing is left leaves the indexes of jobs that wait: there it would count for ever.
        """
        try:
            job: Job = await read(job_id)
        except RecordUnreadable:
            return False
        except Refused:
            async with store_errors("forget a job"), self._redis.pipeline(transaction=True) as pipe:
                for status in _WAITING:
                    pipe.zrem(keys.index(app, "status", status), job_id)
                await pipe.execute()
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
            commit_id = self._clock.random_bytes(16).hex()
            return await self._scripts.commit(job_id, job.version, "", commit_id, commands) == "OK"

    async def _repair_targets(self) -> None:
        """Make targets with queued messages due; each call scans a part of all keys."""
        async with store_errors("look for queues of messages", keys.TARGETS):
            self._cursor, found = await self._redis.scan(
                self._cursor, match=keys.TARGET_QUEUE + "*", count=_KEYS_PER_SCAN
            )
            due = {name.decode(errors="replace").removeprefix(keys.TARGET_QUEUE): 0 for name in found}
            if due:
                await self._redis.zadd(keys.TARGETS, due, nx=True)

    async def _report_set_aside(self) -> None:
        """Report the shared keys that a script has set aside on its way since the last repair: it tells nobody.

        An app's index of jobs is rebuilt too.
        """
        async with store_errors("list what was set aside", keys.ASIDES):
            rows = await self._redis.zrangebyscore(keys.ASIDES, f"({self._told_until}", "+inf", withscores=True)
        for name, at in rows:
            self._told_until = int(at)
            key = name.decode(errors="replace")
            is_index = key.startswith(keys.index(""))
            if is_index:
                self._indexes.add(key)
            if is_index or key in _SHARED_KEY_TYPES:
                report_unreadable(RecordUnreadable(key, "wrong_type"))

    async def _trim_set_aside(self) -> None:
        """Forget what was set aside too long ago, but never that the trail was: marks may still name its records."""
        async with store_errors("forget what was set aside"):
            edge = to_ms(self._clock.now()) - keys.ASIDE_SECONDS * 1000
            expired = await self._redis.zrangebyscore(keys.ASIDES, "-inf", edge)
            if names := [name for name in expired if name != keys.AUDIT.encode()]:
                await self._redis.zrem(keys.ASIDES, *names)
