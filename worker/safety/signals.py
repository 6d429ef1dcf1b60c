"""Defines what the watch reports about one attempt: signals while it runs, one verdict at its end.

Values only. Field names are those of worker/jobs/events.py, so that a signal becomes a fact by copying. No signal
and no repr holds content; a verdict has the output and leaves it out of its repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from worker.jobs.errors import Failure
from worker.jobs.record import Block, InputTransformation, Usage
from worker.jobs.states import CheckEnd, Evidence, Outcome, RetryModelState


@dataclass(frozen=True, slots=True)
class ResponseKnown:
    """New facts about the call; None leaves a field unchanged."""

    request_id: str | None = None
    response_id: str | None = None
    organization: str | None = None
    project: str | None = None
    http_status: int | None = None
    processing_ms: int | None = None
    mode: Literal["background"] | None = None  # the response turned out to run in the background
    resumed: int | None = None  # how often this attempt was resumed
    first_event: bool = False  # the first event of the stream itself has just come
    rate_limits: dict[str, str] | None = None  # x-ratelimit-* of the answer that accepted the call


@dataclass(frozen=True, slots=True)
class FirstOutput:
    """The first output-bearing event of the attempt came."""


@dataclass(frozen=True, slots=True)
class CheckStartedSignal:
    """A check is signalled, or suspected because of silence."""

    evidence: Evidence
    use_cases: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    retry_model: str | None = None
    retry_model_state: RetryModelState = RetryModelState.ABSENT


@dataclass(frozen=True, slots=True)
class CheckUpdatedSignal:
    """More is known of the open check, or (late repeats) of the last one."""

    evidence: Evidence
    use_cases: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    retry_model: str | None = None
    retry_model_state: RetryModelState = RetryModelState.ABSENT
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class CheckEndedSignal:
    """The open check ended, by what came next."""

    ended_by: CheckEnd
    repeats: int = 0


@dataclass(frozen=True, slots=True)
class AccountFlagSignal:
    """The provider recommends verification for this account; emitted once per attempt."""

    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptVerdict:
    """The outcome of an attempt and everything that is known of it.

    `failure` is None exactly if the outcome is delivered (completed, refused, incomplete) or Vigil caused it
    (substituted, cancelled, interrupted). `block` is set exactly if the outcome is blocked; `output` is then empty.
    """

    outcome: Outcome
    failure: Failure | None = None
    block: Block | None = None
    refused: bool = False
    incomplete_reason: str | None = None
    served_model: str | None = None  # None: the provider named none, and nothing is delivered
    served_raw: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    usage: Usage | None = None  # None: the provider gave none; `deltas_counted` may serve as an estimate
    service_tier: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    response_id: str | None = None
    rate_limits: dict[str, str] = field(default_factory=dict)
    output: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    sequence: int | None = None  # the highest sequence number seen: the resume cursor
    deltas_counted: int = 0
    first_output_seen: bool = False
    resumable: bool = False  # the connection ended, the response has an id and may go on
    input_transformations: tuple[InputTransformation, ...] = ()
    longest_silence: float | None = None  # seconds without output; None if its beginning was not watched


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """The last signal of an attempt."""

    verdict: AttemptVerdict


Signal = (
    ResponseKnown
    | FirstOutput
    | CheckStartedSignal
    | CheckUpdatedSignal
    | CheckEndedSignal
    | AccountFlagSignal
    | AttemptEnded
)
