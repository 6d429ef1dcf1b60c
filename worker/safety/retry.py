"""Decides whether and when a failed attempt is repeated on the same model. The only owner of retries (P6).

Pure: times and random numbers (`jitter`) are arguments. Other models are the policy's decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from worker.jobs.errors import Failure
from worker.jobs.states import Outcome

BASE: Final = 1.0
FACTOR: Final = 2.0
CAP: Final = 60.0
SPREAD: Final = 0.1
ONCE: Final = frozenset({"edge_refused", "access_refused", "protocol_error", "bad_json", "unexpected_status"})
"""Codes after which one more attempt is sensible and a second one is not (wire.md table A)."""

HELD_SCOPES: Final = frozenset({"account", "deployment"})
"""Scopes of failures that the job did not cause: it is held, and the attempt is not counted."""

FIRST_HOLD, MAX_HOLD = 5.0, 300.0

MAX_CUTS: Final = 3
"""Give up after this many cuts after the same time: each may have left a billed response running."""

_NAMED_CAUSES: Final = frozenset({Outcome.RATE_LIMITED, Outcome.OVERLOADED})
"""Failures with a cause that the provider names, so that they can't be a block without its code."""

_NOT_COUNTED: Final = frozenset({Outcome.INTERRUPTED, Outcome.QUOTA_EXHAUSTED, Outcome.AUTH_FAILED})

GiveUpReason = Literal[
    "not_retryable",
    "attempts_exhausted",
    "output_seen",
    "check_signalled",
    "retried_once",
    "cut_alike",
    "run_deadline",
]


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Repeat after `seconds`, at the monotonic time `at`."""

    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Make no further attempt on this model; `reason` names the rule."""

    reason: GiveUpReason


def counted(outcomes: Iterable[Outcome | None]) -> int:
    """Return the number of attempts that count against `max_attempts`.

    Not counted are those that a shutdown interrupted and those that failed for the account, after which the circuit and
    not the job decides about the next attempt.
    """
    return sum(1 for outcome in outcomes if outcome not in _NOT_COUNTED)


def delay(attempts_so_far: int, jitter: float, retry_after: float | None = None) -> float:
    """Return the seconds to wait after failed attempt number `attempts_so_far` (from 1), with `jitter` in [0, 1).

        backoff = min(60, 1 * 2 ** (attempts_so_far - 1)) * (0.5 + 0.5 * jitter)
        asked   = retry_after * (1 + 0.1 * jitter)
        delay   = max(backoff, asked)

    Never earlier than the provider asks, and without a limit on what it asks (wire.md section 11, rule 7). A
    `retry_after` that is negative or no number is ignored.
    """
    steps = min(max(attempts_so_far - 1, 0), 30)  # 2 ** 30 s is past the cap; more would only overflow
    backoff = min(CAP, BASE * FACTOR**steps) * (0.5 + 0.5 * jitter)
    if retry_after is None or not retry_after >= 0:
        return backoff
    return max(backoff, retry_after * (1 + SPREAD * jitter))


def hold_delay(times: int, jitter: float) -> float:
    """Return the seconds for which a job is held after its deployment failed `times` times: 5, 10, 20 … 300.

    Spread by `jitter` so that the jobs of a model don't come at once.
    """
    steps = min(max(times - 1, 0), 30)
    return min(MAX_HOLD, FIRST_HOLD * FACTOR**steps) * (1 + SPREAD * jitter)


def resend_forbidden(failure: Failure, output_seen: bool, check_signalled: bool) -> GiveUpReason | None:
    """Return the rule that forbids sending the same prompt again, or None when no rule does.

    That the provider lost the response is no exception: what was put out is paid, and a check may have ended it.
    """
    if output_seen:
        return "output_seen"
    return "check_signalled" if check_signalled and failure.outcome not in _NAMED_CAUSES else None


def decide(
    attempts_so_far: int,
    max_attempts: int,
    failure: Failure,
    output_seen: bool,
    jitter: float,
    now: float,
    deadline: float | None,
    *,
    earlier_same_code: int = 0,
    can_resume: bool = False,
    check_signalled: bool = False,
    repeated_cuts: int = 0,
) -> RetryAt | GiveUp:
    """Return the retry after a failed attempt, or the rule that forbids it.

    `attempts_so_far` includes the failed one and is `counted(...)`. `earlier_same_code`: earlier attempts of the job
    that ended with `failure.code`. `can_resume`: the response goes on upstream, so output already seen is not paid
    for twice. `check_signalled`: a safety check was signalled for what was sent; like a prompt that was answered in
    part, it is not sent again automatically, unless the provider names a rate limit or an overload as the cause.
    `repeated_cuts`: attempts in a row that were cut after the same time. A delay that ends at or past `deadline` is a
    GiveUp("run_deadline").
    """
    if not failure.retryable:
        return GiveUp("not_retryable")
    if (why := resend_forbidden(failure, output_seen and not can_resume, check_signalled)) is not None:
        return GiveUp(why)
    if attempts_so_far >= max_attempts:
        return GiveUp("attempts_exhausted")
    if repeated_cuts >= MAX_CUTS:
        return GiveUp("cut_alike")
    if failure.code in ONCE and earlier_same_code >= 1:
        return GiveUp("retried_once")
    seconds = delay(attempts_so_far, jitter, failure.retry_after)
    if deadline is not None and not now + seconds < deadline:
        return GiveUp("run_deadline")
    if not math.isfinite(seconds):
        return GiveUp("run_deadline")
    return RetryAt(seconds, now + seconds)
