"""A clock that shows the time of Redis, so that deadlines, `not_before` and backoffs mean the same in every process.

Between two replies of Redis it advances by the machine's monotonic clock, so a wall clock that is wrong or jumps
changes nothing. Before the first reply it shows the machine's own time.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.store.errors import store_errors

_REFRESH_INTERVAL_S: Final = 5.0  # clocks drift, and Redis may be another server by then
_MAX_ROUND_TRIP_S: Final = 1.0  # a reply that took longer says too little about now


class StoreClock(Clock):
    """`now` is the time of Redis; sleeping and randomness are the machine's."""

    def __init__(self, redis: ArqRedis, machine: Clock) -> None:
        self._redis, self._machine = redis, machine
        self._seen: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        if self._seen is None:
            return self._machine.now()
        at, then = self._seen
        return at + timedelta(seconds=self._machine.monotonic() - then)

    def monotonic(self) -> float:
        return self._machine.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._machine.sleep(seconds)

    def random_bytes(self, size: int) -> bytes:
        return self._machine.random_bytes(size)

    def random(self) -> float:
        return self._machine.random()

    async def run(self) -> None:
        """Refresh the time until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(_REFRESH_INTERVAL_S)

    async def refresh(self) -> None:
        """Read the time of Redis once; if it does not answer, the clock goes on as before."""
        began = self._machine.monotonic()
        try:
            async with asyncio.timeout(_MAX_ROUND_TRIP_S), store_errors("report its time"):
                seconds, micros = await self._redis.time()
        except (StoreUnavailable, TimeoutError):
            return
        ended = self._machine.monotonic()
        at = datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(micros))
        self._seen = (at, (began + ended) / 2)
