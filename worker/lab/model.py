"""Defines the cases of the "what if" simulation: how the original attempt of a past or invented job would go on.

Pure values; seconds count from the start of that attempt. It must not depend on policies or charts.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from worker.jobs.errors import VigilError
from worker.jobs.spec import Action
from worker.jobs.states import RetryModelState

ACTIONS: Final[tuple[Action, ...]] = ("wait", "offer", "switch", "race", "draft")
THRESHOLDS: Final = (15.0, 30.0, 45.0, 60.0, 90.0)
SILENCE: Final = 120.0
ACCEPTED_AFTER: Final = 15.0
"""Seconds that an app takes to accept an offer, if it accepts at all."""

LeftOut = Literal["cut_short", "failed", "unfinished", "not_started"]


class BadTrail(VigilError):
    """The recorded trail can't be replayed; the message is one line that names the place."""


@dataclass(frozen=True, slots=True)
class CheckSpan:
    """One signalled check, from the notice to its end."""

    start: float
    end: float
    retry_model: str | None = None
    retry_model_state: RetryModelState = RetryModelState.ABSENT


@dataclass(frozen=True, slots=True)
class LabCase:
    """One job: the course of its original attempt, and the time and tokens of a faster model for the same answer.

    `silences`: spans without output that are judged as silence, signalled or not. `blocked`: the content is
    withheld, by the original at `end`; a faster model is taken to withhold it too, so no policy rescues a block.
    `acceptance_draw` in [0, 1): below the share of apps that accept offers, this one does.
    """

    model: str
    end: float
    input_tokens: int
    output_tokens: int
    faster_seconds: float
    faster_tokens: int
    holds: tuple[CheckSpan, ...] = ()
    silences: tuple[tuple[float, float], ...] = ()
    blocked: bool = False
    acceptance_draw: float = 1.0


@dataclass(frozen=True, slots=True)
class LabCases:
    """All cases of one run; `left_out` counts the jobs whose original course is not known, by reason."""

    cases: tuple[LabCase, ...]
    source: str
    left_out: tuple[tuple[LeftOut, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """The result of one policy. Shares are of all jobs, waiting times of the jobs that get an answer.

    `wait_*`: until the first usable answer, a draft counts. `settled_*`: until the final one. `wasted`: paid for
    attempts whose answer is not delivered; `extra`: paid beyond what plain waiting costs. Both for all jobs, in US
    dollars, None when a model has no price.
    """

    action: Action
    after_seconds: float
    silence_seconds: float
    jobs: int
    wait_p50: float
    wait_p95: float
    settled_p50: float
    settled_p95: float
    substituted: float
    offered: float
    drafted: float
    blocked: float
    wasted: Decimal | None
    extra: Decimal | None
