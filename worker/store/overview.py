"""How much waits, how much runs, who works: counted in Redis when asked. Names no job and no app."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.states import Status
from worker.store import keys
from worker.store.places import RANK_STEP, RANKS
from worker.store.pool import asking

_STALE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Depths:
    """Jobs by where they stand; the age in seconds of the oldest that waits to be run, None when none does."""

    queued: int
    scheduled: int
    running: int
    checking: int
    oldest_queued_seconds: float | None


async def depths(redis: ArqRedis, clock: Clock) -> Depths:
    """The queue as it stands."""
    async with asking("count the queue"):
        apps = await _apps(redis)
        async with redis.pipeline(transaction=False) as pipe:
            for place in (keys.READY, keys.LATER, keys.LEASED):
                pipe.zcard(place)
            for rank in sorted(RANKS.values()):
                low, high = rank * RANK_STEP, (rank + 1) * RANK_STEP
                pipe.zrangebyscore(keys.READY, low, f"({high}", start=0, num=1, withscores=True)
            for app in apps:
                pipe.zcard(keys.index(app, "status", Status.CHECKING))
            ready, later, leased, *rest = await pipe.execute()
    heads, checking = rest[: len(RANKS)], sum(rest[len(RANKS) :])
    created = [row[0][1] % RANK_STEP for row in heads if row]
    oldest = max(0.0, (to_ms(clock.now()) - min(created)) / 1000) if created else None
    return Depths(ready, later, max(0, leased - checking), checking, oldest)


async def _apps(redis: ArqRedis) -> list[str]:
    digests: list[bytes] = await redis.hvals(keys.API_KEYS)
    rows = await redis.mget([keys.api_key(d.decode()) for d in digests]) if digests else []
    return sorted({json.loads(row)["app"] for row in rows if row})


async def workers(redis: ArqRedis, clock: Clock) -> list[dict[str, Any]]:
    """Workers whose last heartbeat is younger than a minute, as they describe themselves."""
    async with asking("ask for the workers"):
        rows: list[bytes] = await redis.hvals(keys.WORKERS)
    oldest = clock.now() - timedelta(seconds=_STALE_SECONDS)
    found = (json.loads(row) for row in rows)
    return sorted((w for w in found if datetime.fromisoformat(w["beat_at"]) > oldest), key=lambda w: str(w["id"]))


async def tell_once(redis: ArqRedis, what: str, seconds: float) -> bool:
    """True for the first of all processes that asks; False for the others until so many seconds have passed."""
    async with asking("take turns at telling"):
        return bool(await redis.set(keys.warned(what), "1", nx=True, px=max(1, int(seconds * 1000))))


async def writable(redis: ArqRedis) -> None:
    """Returns when Redis takes writes; StoreUnavailable when it is away, full or read-only."""
    async with asking("take a write"):
        await redis.set(keys.PROBE, "1", px=60_000)
