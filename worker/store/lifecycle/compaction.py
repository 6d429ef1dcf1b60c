"""Compress the record and the events of jobs that have been settled for a minute: from then on they are read seldom.

`vigil:compactdue` lists them from the commit of their end on. Who removes a job from it compresses it; if that worker
dies then, the job stays as it is until it expires, which costs memory only. A job that can't be read, or that Vigil did
not write, is left alone: its bytes are evidence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable
from worker.jobs.ids import is_job_id
from worker.store import compression, keys
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of, writes_compact
from worker.store.connection.script_batch import ScriptBatch
from worker.store.errors import store_errors
from worker.store.jobs.commit_commands import COMPACT_AFTER_MS
from worker.store.jobs.trail_rows import folded, unfolded
from worker.store.jobs.unreadable_records import is_complete, parse_events, read_job, record_json, record_tag
from worker.store.values import pipeline_replies, valid_members

_AT_ONCE: Final = 20  # about 5 ms of this process
_PAGES_PER_SWEEP: Final = 10
_FIELDS: Final = ("v", "rec", "mac")


class Compaction:
    """Compresses settled jobs."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._macs = keyring_of(redis).macs.strict()  # a new tag must not vouch for a record that has none
        self._compact = ScriptBatch(redis, script(redis, "lifecycle/compact_job"))

    async def sweep(self) -> int:
        """Compress what is due, a page at a time; return how many jobs. Does nothing for a client that writes plain."""
        count = 0
        for _ in range(_PAGES_PER_SWEEP if writes_compact(self._redis) else 0):
            due = await self._take()
            if not due:
                break
            count += await self._compress(due)
        return count

    async def _take(self) -> list[str]:
        """Return some of the jobs that are due, which no other process will take."""
        edge = to_ms(self._clock.now())
        async with store_errors("look for what to compress", keys.COMPACTION_DUE):
            rows = await self._redis.zrangebyscore(keys.COMPACTION_DUE, "-inf", edge, start=0, num=_AT_ONCE)
            names = await valid_members(self._redis, keys.COMPACTION_DUE, rows, is_job_id)
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.zrem(keys.COMPACTION_DUE, name)
                taken = await pipe.execute() if names else []
        return [name for name, removed in zip(names, taken, strict=True) if removed]

    async def _compress(self, job_ids: Sequence[str]) -> int:
        names = [name for job_id in job_ids for name in (keys.job(job_id), keys.trail(job_id))]
        async with store_errors("read settled jobs"), self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(keys.job(job_id), *_FIELDS)
                pipe.lrange(keys.trail(job_id), 0, -1)
            found = await pipeline_replies(pipe, names)
        calls = {
            job_id: args
            for job_id, fields, rows in zip(job_ids, found[::2], found[1::2], strict=True)
            if (args := self._arguments(job_id, fields or (None,) * len(_FIELDS), rows or ()))
        }
        if not calls:
            return 0
        async with store_errors("compress settled jobs"):
            done = await asyncio.gather(
                *(self._compact([keys.job(job_id), keys.trail(job_id)], args) for job_id, args in calls.items())
            )
            if again := [job_id for job_id, one in zip(calls, done, strict=True) if not one]:
                later = to_ms(self._clock.now()) + COMPACT_AFTER_MS
                await self._redis.zadd(keys.COMPACTION_DUE, dict.fromkeys(again, later))
        return sum(map(int, done))

    def _arguments(self, job_id: str, fields: Sequence[bytes | None], rows: Sequence[bytes]) -> list[Any]:
        """Return what the script is told; [] for a job that is left as it is."""
        version, record, tag = fields
        events = unfolded(rows)
        try:
            job = read_job(self._macs, job_id, record, tag, version)
            whole = parse_events(self._macs, job_id, events)
            if not record or not job.settled or not is_complete(whole) or {len(whole), len(events)} != {job.version}:
                return []
            small = compression.compress(record_json(job_id, record))
        except RecordUnreadable:
            return []  # who reads it reports it
        return [version, record, len(rows), small, record_tag(self._macs, job_id, job.version, small), folded(events)]
