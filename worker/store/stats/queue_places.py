"""Read where jobs stand in their app's queue, and what an estimate of their start needs. O(log n) per job."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.jobs.view_schema import QueuePlaceView, StartEstimateView
from worker.safety.queue_estimate import QueueLoad, estimate_start
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.provider.durations import DurationCache
from worker.store.stats import worker_registry
from worker.store.values import pipeline_replies

_REREAD_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class AppLoad:
    """How many jobs an app may run at once (0: no limit), and how many it runs."""

    limit: int
    running: int


class QueuePlaces:
    """Places of waiting jobs with estimates; what all jobs share is read once a second at most."""

    def __init__(self, redis: ArqRedis, clock: Clock, app_limit: int, app_share: float = 1.0) -> None:
        """`app_limit`: jobs that an app may run at once if its record does not say, 0 = no limit.

        `app_share`: the share of a worker's slots that an app alone may take.
        """
        self._redis, self._clock, self._app_limit, self._app_share = redis, clock, app_limit, app_share
        self._durations = DurationCache(redis, clock)
        self._load, self._read_at = QueueLoad(0, 0, 0, 0), -math.inf

    async def of_jobs(self, jobs: Sequence[tuple[str, str]]) -> dict[str, QueuePlaceView]:
        """Return, by job id, the place of each (job id, app) that waits in its app's queue."""
        if not jobs:
            return {}
        names = [keys.app_queue(app) for _, app in jobs]
        async with store_errors("look for places in the queue"), self._redis.pipeline(transaction=False) as pipe:
            for (job_id, _), name in zip(jobs, names, strict=True):
                pipe.zrank(name, job_id)
            ranks = await pipeline_replies(pipe, names)
        found = {job: int(rank) for job, rank in zip(jobs, ranks, strict=True) if isinstance(rank, int)}
        apps = await self._apps(sorted({app for _, app in found}))
        return {job_id: await self._place(rank + 1, apps[app]) for (job_id, app), rank in found.items()}

    async def of_next(self, app: str, ahead: int) -> QueuePlaceView:
        """Return the place of a job of this app that has so many of its jobs before it, were it submitted now."""
        return await self._place(ahead + 1, (await self._apps([app]))[app], new=1)

    async def _place(self, position: int, app: AppLoad, new: int = 0) -> QueuePlaceView:
        load = await self._shared()
        share = max(1, int(self._app_share * load.slots))
        limit = min(app.limit or share, share) if self._app_share < 1 else app.limit
        load = replace(load, waiting=load.waiting + new, app_limit=limit, app_running=app.running)
        estimate = estimate_start(position, load, (await self._durations.current()).calls())
        eta: StartEstimateView | None = None
        if estimate is not None:
            p50, p90 = estimate.p50_seconds, estimate.p90_seconds
            eta = {"p50_seconds": p50, "p90_seconds": p90, "samples": estimate.samples}
        return {"position": position, "eta": eta}

    async def _apps(self, apps: Sequence[str]) -> Mapping[str, AppLoad]:
        names = [name for app in apps for name in (keys.app(app), keys.slots(app))]
        async with store_errors("read the apps' limits"), self._redis.pipeline(transaction=False) as pipe:
            for app in apps:
                pipe.get(keys.app(app))
                pipe.scard(keys.slots(app))
            found = await pipeline_replies(pipe, names)
        rows = zip(apps, found[::2], found[1::2], strict=True)
        return {app: AppLoad(self._limit_of(record), running or 0) for app, record, running in rows}

    def _limit_of(self, record: bytes | None) -> int:
        try:
            limit = json.loads(record)["max_running"] if record else None
        except (ValueError, LookupError, TypeError):
            limit = None
        return limit if isinstance(limit, int) else self._app_limit

    async def _shared(self) -> QueueLoad:
        """Return what waits and runs in the deployment, as read lately; the last known while Redis is away."""
        now = self._clock.monotonic()
        if now - self._read_at >= _REREAD_S:
            self._read_at = now
            with contextlib.suppress(StoreUnavailable):
                self._load = await self._read_load()
        return self._load

    async def _read_load(self) -> QueueLoad:
        workers = await worker_registry.workers(self._redis, self._clock)
        names = [keys.LEASED, keys.READY, keys.RING]
        async with store_errors("count the queue"), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zcard(name)
            running, waiting, apps = [reply or 0 for reply in await pipeline_replies(pipe, names)]
        slots = sum(one.get("slots", 0) for one in workers if not one.get("draining"))
        return QueueLoad(slots, running, waiting, apps)
