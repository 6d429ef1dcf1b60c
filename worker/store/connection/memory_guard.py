"""Keep the last of Redis' memory for the jobs that were accepted: new ones are refused before it is full.

A submit is refused while less than the reserve is free, so that commits of running jobs still have room; and no app may
hold more than its share of the whole. Redis is asked once a second, or sooner after much was accepted.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from arq.connections import ArqRedis
from redis.exceptions import NoPermissionError

from worker.clock import Clock
from worker.jobs.errors import StoreFull
from worker.store.error_reasons import FULL, READ_ONLY

_MAX_AGE_S: Final = 1.0
_RECHECK_SHARE: Final = 100  # read again once a hundredth of maxmemory was accepted


class MemoryGuard:
    """What Redis said last of its memory. `reserve` and `app_share` are percentages of maxmemory; 0 = none is kept."""

    def __init__(self, redis: ArqRedis, clock: Clock, *, reserve: int = 0, app_share: int = 0) -> None:
        self._redis, self._clock, self._reserve, self._app_share = redis, clock, reserve, app_share
        self._read_at: float | None = None
        self._reading = False
        self._accepted = 0
        self._limit = self._used = 0
        self._read_only = False

    @property
    def reason(self) -> str:
        """Why Redis takes no new job, by what it said last; "" when it does."""
        if self._read_only:
            return READ_ONLY
        if not self._limit or self._used < self._limit * (100 - self._reserve) / 100:
            return ""
        if self._used >= self._limit:
            return FULL
        return (
            f"Redis uses {self._used / self._limit:.0%} of its maxmemory: the last {self._reserve} % are kept for jobs "
            "that were accepted, and no new one is"
        )

    @property
    def app_bytes(self) -> int:
        """The most bytes that the jobs of one app may take; 0 = any number."""
        return self._limit * self._app_share // 100

    async def admit(self, size: int) -> None:
        """Return when a job of `size` bytes may be submitted. Raises StoreFull."""
        if not self._reading and (
            self._is_older_than(_MAX_AGE_S) or (self._limit and self._accepted * _RECHECK_SHARE > self._limit)
        ):
            await self.read()
        if self.reason and not self._read_only:  # a replica says so itself
            raise StoreFull("Redis takes no new jobs", self.reason)
        self._accepted += size

    async def refresh(self, seconds: float) -> None:
        """Ask Redis again if what it said last is older than that. Raises what the client raises."""
        if self._is_older_than(seconds):
            await self.read()

    def _is_older_than(self, seconds: float) -> bool:
        return self._read_at is None or self._clock.monotonic() - self._read_at >= seconds

    async def read(self) -> str:
        """Ask Redis for its memory and its role; return the reason. One that forbids INFO has no limit here.

        Raises what the client raises while Redis can't be reached.
        """
        self._reading, info = True, dict[str, Any]()
        try:
            with contextlib.suppress(NoPermissionError):
                info = await self._redis.info()
        finally:
            self._reading = False
        self._read_at, self._accepted = self._clock.monotonic(), 0
        evicts = str(info.get("maxmemory_policy", "noeviction")) != "noeviction"  # operators have allowed it
        self._limit = 0 if evicts else int(info.get("maxmemory") or 0)
        self._used = int(info.get("used_memory") or 0) - int(info.get("mem_not_counted_for_evict") or 0)
        self._read_only = info.get("role") == "slave"
        return self.reason
