"""Limit how many jobs an app may submit: a token bucket per app, charged by the script that creates the job.

So a limit costs no call of its own, exactly the created jobs are charged, and all API processes share one bucket.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Final

from arq.connections import ArqRedis

from worker.jobs.errors import RateExceeded
from worker.store import keys
from worker.store.errors import store_errors

_MINUTE_US: Final = 60_000_000
MAX_RATE: Final = 6_000_000
"""The highest limit, in jobs a minute and as a burst."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Jobs a minute (0 = no limit), and how many at once; a burst of 0 means as many as in a minute."""

    per_minute: int
    burst: int = 0

    @property
    def capacity(self) -> int:
        """Return the tokens of a full bucket."""
        return self.burst or self.per_minute

    @property
    def interval_us(self) -> int:
        """Return the microseconds in which one token comes back; 0 = no limit."""
        return max(1, round(_MINUTE_US / self.per_minute)) if self.per_minute else 0

    @property
    def window_seconds(self) -> int:
        """Return the seconds in which an empty bucket is full again."""
        return math.ceil(self.capacity * self.interval_us / 1e6)


@dataclass(slots=True)
class RateMeter:
    """The app's bucket as one request sees it: its rate, and the fewest tokens left after one of its charges."""

    rate: RateLimit
    left: int | None = None
    full_in: int = 0

    def record_charge(self, left: int, full_us: int) -> None:
        """Record that one token was taken; the replies to a request's charges may come in any order."""
        if self.left is None or left <= self.left:
            self.left, self.full_in = left, math.ceil(full_us / 1e6)

    def exceeded(self, full_us: int, wait_us: int) -> RateExceeded:
        """Record that there was no token; return the error to raise."""
        self.record_charge(0, full_us)
        return RateExceeded(self.rate.capacity, self.rate.window_seconds, math.ceil(wait_us / 1e6))


async def refuse_if_spent(redis: ArqRedis, app: str, meter: RateMeter) -> None:
    """Raise RateExceeded if the app has no token now; takes none. For work that is done before a token is taken."""
    interval = meter.rate.interval_us
    if not interval:
        return
    async with store_errors("look at the rate limit"):
        raw, (seconds, micros) = await redis.get(keys.rate(app)), await redis.time()
    now, fill_time = seconds * 1_000_000 + micros, meter.rate.capacity * interval
    full_at = max(now, min(int(raw) if raw and raw.isdigit() else 0, now + fill_time))
    wait = full_at + interval - now - fill_time
    if wait > 0:
        raise meter.exceeded(full_at - now, wait)


def dump(rate: RateLimit | None) -> list[int] | None:
    """Encode a rate for the app's record."""
    return None if rate is None else [rate.per_minute, rate.burst]


def load(app: bytes | None) -> RateLimit | None:
    """Decode the rate of an app's record; None = the default."""
    stored = json.loads(app).get("rate") if app else None
    if stored is None:
        return None
    per_minute, burst = (int(number) for number in stored)
    return RateLimit(per_minute, burst)
