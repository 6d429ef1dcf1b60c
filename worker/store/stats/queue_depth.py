"""Count waiting and running jobs in Redis. The counts name no job and no app."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable
from worker.jobs.spec import Priority
from worker.jobs.states import Status
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.jobs.queue import RANK_STEP, RANKS
from worker.store.values import pipeline_replies, readable, report_unreadable


@dataclass(frozen=True, slots=True)
class QueueDepths:
    """Jobs by state, and the age in seconds of the oldest queued one, None when none is queued."""

    queued: int
    scheduled: int
    running: int
    checking: int
    oldest_queued_seconds: float | None


async def depths(redis: ArqRedis, clock: Clock, known: Sequence[str] | None = None) -> QueueDepths:
    """Count the jobs now; `known`: the apps, if they were listed lately."""
    async with store_errors("count the queue"):
        known = await apps(redis) if known is None else known
        async with redis.pipeline(transaction=False) as pipe:
            for place in (keys.READY, keys.LATER, keys.LEASED):
                pipe.zcard(place)
            for rank in sorted(RANKS.values()):
                low, high = rank * RANK_STEP, (rank + 1) * RANK_STEP
                pipe.zrangebyscore(keys.READY, low, f"({high}", start=0, num=1, withscores=True)
            for app in known:
                pipe.zcard(keys.index(app, "status", Status.CHECKING))
            names = [keys.READY, keys.LATER, keys.LEASED, *(keys.READY for _ in RANKS)]
            names += [keys.index(app, "status", Status.CHECKING) for app in known]
            ready, later, leased, *rest = [reply or 0 for reply in await pipeline_replies(pipe, names)]
    heads, checking = rest[: len(RANKS)], sum(rest[len(RANKS) :])
    created = [row[0][1] % RANK_STEP for row in heads if isinstance(row, list) and row]
    oldest = max(0.0, (to_ms(clock.now()) - min(created)) / 1000) if created else None
    return QueueDepths(ready, later, max(0, leased - checking), checking, oldest)


async def jobs_ahead(redis: ArqRedis, clock: Clock, app: str, priority: Priority) -> int:
    """Count the app's waiting jobs that are claimed before one of this priority that is submitted now."""
    rank = RANKS[priority] * RANK_STEP + to_ms(clock.now())
    async with store_errors("count the queue", keys.app_queue(app)):
        return int(await redis.zcount(keys.app_queue(app), "-inf", rank))


async def apps(redis: ArqRedis) -> list[str]:
    """Return every app whose keys can be read."""
    try:
        async with store_errors("list keys", keys.API_KEYS):
            digests: list[bytes] = await redis.hvals(keys.API_KEYS)
    except RecordUnreadable as error:
        report_unreadable(error)
        return []
    names = [keys.api_key(digest.decode(errors="replace")) for digest in digests]
    rows = await redis.mget(names) if names else []
    return sorted({app for _, app in readable(zip(names, rows, strict=True), lambda raw: str(json.loads(raw)["app"]))})
