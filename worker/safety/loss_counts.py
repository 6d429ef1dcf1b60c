"""Count what safety cost one ended job: minutes, tokens and money of checks, blocks and substitutions. Pure.

The counts are whole numbers that can be added up. They follow from the job's record alone, which follows from its audit
records: so whoever has the trail can compute them again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, Literal

from worker.jobs.record import Attempt, Check, DisclosureReason, Job
from worker.jobs.states import DELIVERED, CheckEnd, Evidence, Outcome, Purpose, Status

LossCounts = Mapping[str, int]
"""Counts by name; one that is missing is 0. Money is in billionths of a dollar, time in milliseconds."""

Spent = Literal["all", "blocked", "rerouted", "given_up"]
"""Which attempts a group of counts is about: all, or those whose answer safety took away, by what took it."""
Ending = Literal["answer", "block", "reroute", "given_up", "failure"]
"""What ended a check: the answer or a block of the provider, a faster model, the app or a deadline, a fault."""

JOBS: Final = "jobs"
CHECKED, SUSPECTED, BLOCKED, SUBSTITUTED = "checked", "suspected", "blocked", "substituted"
LOST_MS, BLOCKED_MS, REROUTED_MS = "lost.ms", "blocked.ms", "rerouted.ms"
EXTRA, SAVED, COMPARED, NOT_COMPARED = "extra", "saved", "compared", "not_compared"
LOSSES: Final[tuple[Spent, ...]] = ("blocked", "rerouted", "given_up")
SAFETY_REASONS: Final[tuple[DisclosureReason, ...]] = (
    "safety_check_delay",
    "silence",
    "offer_accepted",
    "provider_reroute",
)
"""Why a model is substituted because of safety; a denied access is another matter."""
ENDINGS: Final[tuple[Ending, ...]] = ("answer", "block", "reroute", "given_up", "failure")
NANO: Final = 10**9
_MAX_NANO, _MAX_TOKENS = 10**15, 10**12  # of one attempt: no answer of a provider can make a sum overflow
_BESIDE: Final = frozenset({Purpose.RACE, Purpose.DRAFT})
_STOPPED: Final = frozenset({Outcome.CANCELLED, Outcome.SUBSTITUTED})
_GIVEN_UP: Final = frozenset({Outcome.CANCELLED, Outcome.TIMED_OUT})
_BY_PROVIDER: Final[Mapping[CheckEnd | None, Ending]] = {
    CheckEnd.OUTPUT: "answer",
    CheckEnd.COMPLETED: "answer",
    CheckEnd.BLOCKED: "block",
    CheckEnd.SUBSTITUTED: "reroute",
}
_WEEK: Final = re.compile(r"([0-9]{4})-W([0-9]{2})")
_Interval = tuple[datetime, datetime]


def week_of(at: datetime) -> str:
    """Return the ISO week in which a time is, by UTC, such as 2026-W27."""
    return week_of_day(at.astimezone(UTC).date())


def week_of_day(day: date) -> str:
    """Return the ISO week of a day."""
    year, week, _ = day.isocalendar()
    return f"{year:04}-W{week:02}"


def monday_of(week: str) -> date:
    """Return the first day of an ISO week; raise ValueError for text that names none."""
    found = _WEEK.fullmatch(week)
    if found is None:
        raise ValueError("not an ISO week")
    return date.fromisocalendar(int(found[1]), int(found[2]), 1)


def loss_counts(job: Job) -> LossCounts:
    """Return the counts of a job that has ended; nothing for one that has not."""
    if not job.settled:
        return {}
    counts = Counter[str]()
    _add_jobs(counts, job)
    for check in job.checks:
        name = f"check.{check.evidence.value}.{_ending(job, check)}"
        counts[f"{name}.n"] += 1
        counts[f"{name}.ms"] += _milliseconds(check.started_at, check.ended_at)
    for attempt in job.attempts:
        _add_spent(counts, "all", attempt)
        if (loss := _loss_of(job, attempt)) is not None:
            _add_spent(counts, loss, attempt)
    _add_time(counts, job)
    return {name: int(count) for name, count in counts.items() if count}


def rank_of(counts: LossCounts) -> int:
    """Return by what end users are ranked: money that was lost, and time as if an hour cost $0.0036."""
    return sum(counts.get(f"{group}.usd", 0) for group in LOSSES) + counts.get(LOST_MS, 0)


def _add_jobs(counts: Counter[str], job: Job) -> None:
    counts[JOBS] = 1
    evidence = {check.evidence for check in job.checks}
    counts[CHECKED] = Evidence.SIGNALLED in evidence
    counts[SUSPECTED] = evidence == {Evidence.SUSPECTED}
    counts[BLOCKED] = job.block is not None
    reason = job.disclosure.reason if job.disclosure is not None else None
    if reason in SAFETY_REASONS and job.served_model is not None:
        counts[SUBSTITUTED] = 1
        counts[f"{SUBSTITUTED}.{reason}"] = 1
        _add_difference(counts, job)


def _add_difference(counts: Counter[str], job: Job) -> None:
    """Add what the substitute's answer cost more, or less, than the same tokens by the requested model."""
    answered = job.attempt(job.winner) if job.winner is not None else None
    if answered is None or answered.cost is None or answered.cost_as_requested is None:
        counts[NOT_COMPARED] = 1
        return
    difference = _nano(answered.cost) - _nano(answered.cost_as_requested)
    counts[COMPARED] = 1
    counts[EXTRA] = max(0, difference)
    counts[SAVED] = max(0, -difference)


def _add_spent(counts: Counter[str], group: Spent, attempt: Attempt) -> None:
    usage = attempt.usage
    read = min(usage.input_tokens, _MAX_TOKENS) if usage is not None else 0
    written = min(usage.output_tokens, _MAX_TOKENS) if usage is not None else 0
    counts[f"{group}.n"] += 1
    counts[f"{group}.in"] += read
    counts[f"{group}.out"] += written
    if attempt.cost is None:
        counts[f"{group}.unpriced"] += 1
        counts[f"{group}.unpriced_tokens"] += read + written
        return
    counts[f"{group}.usd"] += _nano(attempt.cost)
    if usage is not None and usage.estimated:
        counts[f"{group}.estimated"] += 1
        counts[f"{group}.estimated_usd"] += _nano(attempt.cost)


def _loss_of(job: Job, attempt: Attempt) -> Spent | None:
    """Return what took the attempt's answer away if that was safety, else None; a plain failure is none."""
    if attempt.number == job.winner:
        return None
    outcome = attempt.outcome
    if outcome is Outcome.BLOCKED or (job.block is not None and (outcome in _STOPPED or outcome in DELIVERED)):
        return "blocked"
    if outcome is Outcome.SUBSTITUTED or attempt.purpose in _BESIDE or _lost_race(job, attempt):
        return "rerouted"
    checked = any(c.attempt == attempt.number and c.evidence is Evidence.SIGNALLED for c in _given_up_checks(job))
    return "given_up" if checked and outcome in _GIVEN_UP else None


def _lost_race(job: Job, attempt: Attempt) -> bool:
    """Return whether the attempt was stopped because the faster model beside it had answered."""
    won = job.winner is not None and job.attempt(job.winner).purpose in _BESIDE
    return won and attempt.outcome in _STOPPED


def _given_up_checks(job: Job) -> list[Check]:
    return [check for check in job.checks if _ending(job, check) == "given_up"]


def _ending(job: Job, check: Check) -> Ending:
    found = _BY_PROVIDER.get(check.ended_by)
    if found is not None:
        return found
    if check.ended_by is CheckEnd.CANCELLED:
        if job.block is not None:
            return "block"
        return "reroute" if job.status is Status.COMPLETED else "given_up"
    timed_out = check.ended_by is CheckEnd.TIMED_OUT and job.status is Status.EXPIRED
    return "given_up" if timed_out else "failure"


def _add_time(counts: Counter[str], job: Job) -> None:
    """Add how long checks, blocks and models that were given up kept the job; what overlaps counts once."""
    ended = job.finished_at
    checks = [(c.started_at, c.ended_at) for c in job.checks if c.evidence is Evidence.SIGNALLED and c.ended_at]
    blocked = [(job.started_at, ended)] if job.block is not None and job.started_at and ended else []
    rerouted = [] if job.block is not None else list(_replaced(job))
    counts[BLOCKED_MS] = _union(blocked)
    counts[REROUTED_MS] = _union(rerouted)
    counts[LOST_MS] = _union([*checks, *blocked, *rerouted])


def _replaced(job: Job) -> Iterable[_Interval]:
    """Yield the time of each attempt that another model replaced, until that one began."""
    winner = job.attempt(job.winner) if job.winner is not None else None
    for attempt in job.attempts:
        if attempt.outcome is Outcome.SUBSTITUTED and attempt.finished_at is not None:
            yield attempt.started_at, attempt.finished_at
        elif (
            winner is not None
            and winner.purpose is Purpose.RACE
            and attempt.outcome in _STOPPED
            and attempt.started_at < winner.started_at
        ):
            yield attempt.started_at, winner.started_at


def _union(intervals: Sequence[_Interval]) -> int:
    total, reached = 0, None
    for start, end in sorted(intervals):
        begin = start if reached is None else max(start, reached)
        total += _milliseconds(begin, end)
        reached = end if reached is None else max(end, reached)
    return total


def _milliseconds(start: datetime, end: datetime | None) -> int:
    return 0 if end is None else max(0, (end - start) // timedelta(milliseconds=1))


def _nano(amount: Decimal) -> int:
    """Return billionths of a dollar, rounded."""
    return min(int((amount * NANO).to_integral_value(ROUND_HALF_EVEN)), _MAX_NANO)
