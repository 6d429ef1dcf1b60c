"""Estimates when a waiting job starts: from its place, how many slots the workers have, and how long calls take.

Pure. A slot takes the next job when its call ends, so with S slots a start comes about every (mean call / S) seconds;
the spread of the calls is that of the estimate. Apps take turns, so other apps' jobs count as far as their turns come
first. It is an estimate: it says nothing of pauses, of retries, or of workers that come and go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from worker.safety.hold_times import MIN_SAMPLES, bound_of

_P90: Final = 1.2816  # standard deviations above the middle


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What waits and runs in the deployment, and what one app has running; `app_limit` 0: no limit."""

    slots: int
    running: int
    waiting: int
    apps: int
    app_limit: int = 0
    app_running: int = 0


@dataclass(frozen=True, slots=True)
class StartEstimate:
    """In how many seconds the job starts: as likely before as after p50, nine times of ten before p90."""

    p50_seconds: float
    p90_seconds: float
    samples: int


def estimate_start(position: int, load: QueueLoad, calls: Mapping[int, int]) -> StartEstimate | None:
    """Return when the job at this place of its app's queue (from 1) starts; None if that is not known.

    `calls`: how long calls took, counted by bucket. Unknown without a worker, or with too few calls measured.
    """
    samples = sum(calls.values())
    if load.slots <= 0 or samples < MIN_SAMPLES:
        return None
    turns = max(position, min(load.waiting, position * max(1, load.apps)))
    waits = [_wait(turns - max(0, load.slots - load.running), load.slots, calls)]
    if load.app_limit > 0:
        own = min(load.app_limit, load.slots)
        waits.append(_wait(position - max(0, load.app_limit - load.app_running), own, calls))
    p50, p90 = (round(max(column), 1) for column in zip(*waits, strict=True))
    return StartEstimate(p50, p90, samples)


def _wait(ends: int, slots: int, calls: Mapping[int, int]) -> tuple[float, float]:
    """Return the middle and the ninth tenth of the time until so many calls have ended in so many slots."""
    if ends <= 0:
        return 0.0, 0.0
    total = sum(calls.values())
    mean = sum(count * bound_of(bucket) for bucket, count in calls.items()) / total
    variance = sum(count * (bound_of(bucket) - mean) ** 2 for bucket, count in calls.items()) / total
    middle = ends * mean / slots
    return middle, middle + _P90 * math.sqrt(ends * variance) / slots
