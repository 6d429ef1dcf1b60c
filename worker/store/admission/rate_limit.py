"""How many jobs an app may submit: a token bucket per app, charged by the script that creates the job.

So a limit costs no question of its own, what was charged was created, and several API processes share one count.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Final

from worker.jobs.errors import RateExceeded

_MINUTE_US: Final = 60_000_000
MAX_RATE: Final = 6_000_000
"""Jobs a minute, and jobs at once, beyond which a limit is none."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Jobs a minute (0 = no limit), and how many at once; without a burst, as many as in a minute."""

    per_minute: int
    burst: int = 0

    @property
    def capacity(self) -> int:
        """The tokens of a full bucket."""
        return self.burst or self.per_minute

    @property
    def interval_us(self) -> int:
        """Microseconds in which one token comes back; 0 = no limit."""
        return max(1, round(_MINUTE_US / self.per_minute)) if self.per_minute else 0

    @property
    def window_seconds(self) -> int:
        """Seconds in which an empty bucket is full again."""
        return math.ceil(self.capacity * self.interval_us / 1e6)


@dataclass(slots=True)
class RateMeter:
    """The app's bucket as one request sees it: its rate, and the least that was left when the request was charged."""

    rate: RateLimit
    left: int | None = None
    full_in: int = 0

    def record_charge(self, left: int, full_us: int) -> None:
        """One token was taken; the answers to one request's many charges may come in any order."""
        if self.left is None or left <= self.left:
            self.left, self.full_in = left, math.ceil(full_us / 1e6)

    def exceeded(self, full_us: int, wait_us: int) -> RateExceeded:
        """There was none to take."""
        self.record_charge(0, full_us)
        return RateExceeded(self.rate.capacity, self.rate.window_seconds, math.ceil(wait_us / 1e6))


def dump(rate: RateLimit | None) -> list[int] | None:
    """As an app's record holds it."""
    return None if rate is None else [rate.per_minute, rate.burst]


def load(app: bytes | None) -> RateLimit | None:
    """The rate of an app's record; None = the default."""
    kept = json.loads(app).get("rate") if app else None
    if kept is None:
        return None
    per_minute, burst = (int(number) for number in kept)
    return RateLimit(per_minute, burst)
