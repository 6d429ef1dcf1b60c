"""Says how long a silence is usual for a model, and from when on silence suggests a safety check. Pure.

Each answered call counts once, with its longest silence, in the buckets of `hold_times`. A call with a check that was
signalled does not count; one whose silence was taken for a check tells only that its silence lasted at least as long
(Kaplan and Meier), so that held calls never make the usual silence look longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from worker.safety.hold_times import bound_of

MIN_SAMPLES: Final = 200
"""Fewer calls than this say nothing of what is usual: the starting value counts."""
SHARE: Final = 0.99
MARGIN: Final = 1.5
"""Silence is unusual when it lasts this many times as long as that of 99 of 100 calls."""
LOWEST_S: Final = 30.0
HIGHEST_S: Final = 600.0
MAX_SUSPECTED: Final = 0.25
"""If more calls than this were suspected, the model became slower: what was measured only raises the start value."""


@dataclass(frozen=True, slots=True)
class Silences:
    """The longest silences of a model's calls, as counts by bucket.

    `usual`: of calls that nothing was suspected of. `suspected`: of calls that were answered after all.
    """

    usual: Mapping[int, int] = field(default_factory=dict)
    suspected: Mapping[int, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Return how many calls the usual silence is known from."""
        return sum(self.usual.values())

    def usual_seconds(self) -> float | None:
        """Return the silence that 99 of 100 calls do not exceed, None with too few calls.

        If more than one of 100 were suspected, it is the longest one of the others.
        """
        if self.samples < MIN_SAMPLES:
            return None
        at_risk, share, longest = self.samples + sum(self.suspected.values()), 1.0, 0
        for bucket in sorted({*self.usual, *self.suspected}):
            ended = self.usual.get(bucket, 0)
            longest = bucket if ended else longest
            share *= 1 - ended / at_risk
            if share <= 1 - SHARE + 1e-9:
                break
            at_risk -= ended + self.suspected.get(bucket, 0)
        return bound_of(longest)


def suspect_after(silences: Silences, start: float) -> float:
    """Return the seconds of silence after which a check is suspected; `start`: what counts until enough is measured."""
    usual = silences.usual_seconds()
    if usual is None:
        return start
    after = min(HIGHEST_S, max(LOWEST_S, usual * MARGIN))
    suspected = sum(silences.suspected.values())
    if suspected > MAX_SUSPECTED * (silences.samples + suspected):
        return max(after, start)
    return after
