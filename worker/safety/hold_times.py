"""Estimates from measured durations: how long safety checks hold a request, and when waiting will miss a deadline.

Pure. Durations are counted in buckets that grow by a tenth each, so that a count is small whatever was measured. A
check that Vigil cut short (a faster model took over, a deadline passed) tells only that it would have lasted longer:
such counts go into the estimate as that (Kaplan and Meier), because leaving them out would make holds look short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MIN_SAMPLES: Final = 5
"""Fewer holds than this that were measured to their end say nothing."""
PROBABLE: Final = 0.5
_FIRST_S: Final = 0.1
_GROWTH: Final = 1.1
_MAX_BUCKET: Final = 150  # about 45 hours


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration: the first whose bound is not below it."""
    if not seconds > _FIRST_S:
        return 0
    return min(_MAX_BUCKET, math.ceil(math.log(seconds / _FIRST_S, _GROWTH) - 1e-9))


def bound_of(bucket: int) -> float:
    """Return the longest duration of a bucket, in seconds."""
    return _FIRST_S * _GROWTH ** min(max(bucket, 0), _MAX_BUCKET)


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the bound of the bucket below which `share` of the counted durations lie; None if none is counted."""
    total, seen = sum(counts.values()), 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if total and seen >= share * total:
            return bound_of(bucket)
    return None


@dataclass(frozen=True, slots=True)
class HoldTimes:
    """Measured holds of one family, as counts by bucket, and what followed them.

    `ended`: holds that ended by themselves. `cut`: holds that Vigil ended first. `finishing`: from the end of a hold to
    the end of the answer.
    """

    ended: Mapping[int, int] = field(default_factory=dict)
    cut: Mapping[int, int] = field(default_factory=dict)
    finishing: Mapping[int, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Return how many holds were measured to their end."""
        return sum(self.ended.values())

    def lasting(self, seconds: float) -> float:
        """Return the share of holds that last longer than `seconds`."""
        at_risk, share = self.samples + sum(self.cut.values()), 1.0
        for bucket in sorted({*self.ended, *self.cut}):
            if bound_of(bucket) > seconds:
                break
            ended = self.ended.get(bucket, 0)
            share *= 1 - ended / at_risk if at_risk else 1.0
            at_risk -= ended + self.cut.get(bucket, 0)
        return max(0.0, share)


def act_early_after(after_seconds: float, deadline_in: float, holds: HoldTimes) -> float | None:
    """Return the seconds from a check's start after which to act before `after_seconds`; None to keep to that.

    `deadline_in`: the seconds from the check's start to the job's deadline. Waiting probably misses it if, of the holds
    that have lasted as long as this one, at least half last until the answer can't be finished in time any more. The
    longer this one lasts, the more probable that is, so there is one moment from which on it is true.
    """
    if holds.samples < MIN_SAMPLES or not math.isfinite(deadline_in):
        return None
    latest = deadline_in - (quantile(holds.finishing, 0.5) or 0.0)
    lasting_until_latest = holds.lasting(latest)
    moments = [0.0, *sorted(bound_of(bucket) for bucket in {*holds.ended, *holds.cut}), max(0.0, latest)]
    for moment in sorted(one for one in moments if one < min(after_seconds, deadline_in)):
        if moment >= latest:
            return moment
        still = holds.lasting(moment)
        if still > 0 and lasting_until_latest / still >= PROBABLE:
            return moment
    return None
