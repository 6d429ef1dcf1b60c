"""Draws invented jobs for the simulation from a documented mixture; the same seed gives the same jobs.

    what                                drawn from                                     why (wire.md section 2.3)
    a signalled check                   25 % of jobs                                   an account under extra checks
    a silent delay, nothing signalled   5 %                                            SSE may carry no signal (0.2)
    how long it holds                   lognormal, median 50 s, sigma 0.7, 2..600 s    35 s, +45..65 s, up to 240 s
    it ends in a block                  12 % of the checked, 0.3 % of the others       35 s, then a block
    a second check in mid-output        10 % of the checked that were cleared          checks are announced again
    the provider's retry_model          60 % names the fast tier, 30 % absent, 10 % null
    first output, sol-like              lognormal, median 12 s, sigma 0.5              11 s and 12 s unchecked
    first output, luna-like             lognormal, median 2.5 s, sigma 0.5             a guess
    output tokens                       lognormal, median 1500, sigma 0.8; 60/s and 180/s    a guess
    input tokens                        lognormal, median 3000, sigma 1.0              a guess

The shares are assumptions and no measurement: replay your own trail before you decide by them.
"""

from __future__ import annotations

import math
import random  # noqa: TID251  a simulation's seed is its argument
from statistics import NormalDist
from typing import Final

from worker.jobs.catalogue import Catalogue
from worker.jobs.states import RetryModelState
from worker.lab.model import CheckSpan, LabCase, LabCases

SIGNALLED: Final = 0.25
SILENT: Final = 0.05
BLOCKED_IN_CHECK: Final = 0.12
BLOCKED_OTHERWISE: Final = 0.003
CHECKED_AGAIN: Final = 0.10
NAMED: Final = 0.60
ABSENT: Final = 0.90  # the running sum: named, then absent, the rest is an explicit null
ORIGINAL_RATE: Final = 60.0
FASTER_RATE: Final = 180.0
SIGNAL_AT: Final = 0.5  # seconds from the call to the notice and to the start of silence
_NORMAL: Final = NormalDist()
_EDGE: Final = 1e-12


class SeededDraws:
    """Seeded draws by the inverse of the distribution, so that each uses one number."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  no secret is drawn

    def even(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()

    def lognormal(self, median: float, sigma: float, least: float, most: float) -> float:
        """Return a lognormal number, cut to its bounds."""
        z = _NORMAL.inv_cdf(min(1 - _EDGE, max(_EDGE, self.even())))
        return min(most, max(least, median * math.exp(sigma * z)))


def delayed_model(catalogue: Catalogue) -> str | None:
    """Return the first model in models.toml that is checked and has a faster one, or None."""
    return next((m.id for m in catalogue.models.values() if m.checked and catalogue.faster(m.id)), None)


def draw(jobs: int, seed: int, model: str, faster: str | None) -> LabCases:
    """Draw `jobs` cases for `model`; `faster` is the retry_model of a provider that names one."""
    rng = SeededDraws(seed)
    return LabCases(tuple(_case(rng, model, faster) for _ in range(jobs)), f"synthetic, seed {seed}")


def _case(rng: SeededDraws, model: str, faster: str | None) -> LabCase:
    """Draw one job; every job uses the same number of draws, so that changing one share changes no other job."""
    kind, ends, again, draw_value = rng.even(), rng.even(), rng.even(), rng.even()
    held, second = rng.lognormal(50, 0.7, 2, 600), rng.lognormal(50, 0.7, 2, 600)
    first, quick = rng.lognormal(12, 0.5, 1, 120), rng.lognormal(2.5, 0.5, 0.3, 30)
    tokens = round(rng.lognormal(1500, 0.8, 20, 30_000))
    read = round(rng.lognormal(3000, 1.0, 20, 200_000))
    share, accepts = rng.even(), rng.even()
    signalled, delayed = kind < SIGNALLED, kind < SIGNALLED + SILENT
    blocked = ends < (BLOCKED_IN_CHECK if delayed else BLOCKED_OTHERWISE)
    writing = tokens / ORIGINAL_RATE
    output_at = SIGNAL_AT + (held if delayed else 0.0) + first
    retry_model, state = _named(draw_value, faster)
    holds: list[CheckSpan] = []
    silences = [(SIGNAL_AT, output_at)]
    end = output_at + writing
    if blocked:
        end = SIGNAL_AT + held if delayed else output_at + share * writing
        silences = [(SIGNAL_AT, min(end, output_at))]
        tokens = round(tokens * (1.0 if delayed else share))
    if signalled:
        holds.append(CheckSpan(SIGNAL_AT, end if blocked else output_at, retry_model, state))
        if again < CHECKED_AGAIN and not blocked:
            begins = output_at + share * writing
            holds.append(CheckSpan(begins, begins + second, retry_model, state))
            silences.append((begins, begins + second))
            end += second
    return LabCase(
        model=model,
        end=end,
        input_tokens=read,
        output_tokens=tokens,
        faster_seconds=SIGNAL_AT + quick + tokens / FASTER_RATE,
        faster_tokens=tokens,
        holds=tuple(holds),
        silences=tuple(silences),
        blocked=blocked,
        acceptance_draw=accepts,
    )


def _named(draw_value: float, faster: str | None) -> tuple[str | None, RetryModelState]:
    if faster is not None and draw_value < NAMED:
        return faster, RetryModelState.NAMED
    return None, RetryModelState.ABSENT if draw_value < ABSENT else RetryModelState.NONE
