"""The body of the report on what safety cost, made from counts (`worker/safety/loss_counts.py`).

Every number says what it is of: estimated and unknown money is shown apart, and so are checks that silence suggests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Literal, NotRequired

from typing_extensions import TypedDict

from worker.jobs.catalogue import dollars
from worker.jobs.record import DisclosureReason
from worker.jobs.view_schema import Money, documented
from worker.safety import loss_counts as names
from worker.safety.loss_counts import ENDINGS, NANO, Spent
from worker.store.stats.loss_report import Dimension, LossGroup

NOTES: Final = (
    "A job counts once, in the ISO week (UTC) in which it ended, under the model that it asked for.",
    "lost.seconds: signalled checks, models given up for a faster one, jobs that ended blocked; overlaps count once.",
    "lost.cost: attempts whose answer was withheld, dropped for a faster model, or given up during a check.",
    "substitutions: what the answers cost more or less than the same tokens by the requested model; not in lost.",
    "Each number follows from the audit trail: `vigil report --verify` computes it again from the records.",
)
_PLACES: Final = 6


@documented
class SpentView(TypedDict):
    """What some attempts used. Their cost is that of the attempts with a price."""

    attempts: int
    input_tokens: int
    output_tokens: int
    cost: Money
    estimated_attempts: int
    """Those of which the provider told no usage: Vigil counted."""
    estimated_cost: Money
    """The part of `cost` that is theirs."""
    unpriced_attempts: int
    """Those without a price; they are not in `cost`."""
    unpriced_tokens: int


@documented
class LossView(SpentView):
    """What attempts used whose answer safety took away, and the time it cost."""

    seconds: float


@documented
class CheckTimeView(TypedDict):
    """How many checks ended in one way, and how long they had lasted."""

    count: int
    seconds: float


@documented
class CheckEndingsView(TypedDict):
    """How long checks lasted, and what ended them. Two at once both count."""

    count: int
    seconds: float
    by_answer: CheckTimeView
    by_block: CheckTimeView
    by_reroute: CheckTimeView
    """By the delay rule or an accepted offer: a faster model answered."""
    by_giving_up: CheckTimeView
    """The app cancelled, or the job's deadline came."""
    by_failure: CheckTimeView
    """The call failed, or its worker stopped."""


@documented
class SafetyJobsView(TypedDict):
    """Jobs that ended."""

    ended: int
    checked: int
    """With a signalled check."""
    suspected: int
    """With silence alone that looked like one."""
    blocked: int
    substituted: int
    """Answered by another model because of safety; not those whose model was not granted."""


@documented
class SafetyRatesView(TypedDict):
    """Shares of all jobs that ended, from 0 to 1; null without any."""

    checked: float | None
    suspected: float | None
    blocked: float | None
    substituted: float | None


@documented
class SafetyChecksView(TypedDict):
    """Checks by evidence."""

    signalled: CheckEndingsView
    suspected: CheckEndingsView


@documented
class SubstitutionsView(TypedDict):
    """Answers of other models than the requested ones, because of safety, and what they cost more or less."""

    by_reason: dict[DisclosureReason, int]
    extra_cost: Money
    """What they cost more than the same tokens by the requested model."""
    saved_cost: Money
    """What the cheaper ones among them cost less."""
    compared: int
    not_compared: int
    """Without a price of both models."""


@documented
class LostView(TypedDict):
    """What safety took: blocked, rerouted and given_up together."""

    cost: Money
    tokens: int
    seconds: float
    estimated_cost: Money
    unpriced_tokens: int


class _Counted(TypedDict):
    jobs: SafetyJobsView
    rates: SafetyRatesView
    spent: SpentView
    """All attempts of these jobs."""
    lost: LostView
    checks: SafetyChecksView
    blocked: LossView
    """Attempts of which nothing was delivered because of a block; the time is that of the blocked jobs."""
    rerouted: LossView
    """Attempts that were dropped for a faster model, or lost to one beside them."""
    given_up: SpentView
    """Attempts that the app or a deadline ended during a check."""
    substitutions: SubstitutionsView


@documented
class SafetyTotalsView(_Counted):
    """Sums."""


@documented
class SafetyRowView(_Counted):
    """Sums of one group; it has the fields by which the report is grouped."""

    app: NotRequired[str]
    week: NotRequired[str]
    model: NotRequired[str]
    end_user: NotRequired[str | None]
    """The safety identifier; null for jobs without an end user."""


@documented
class SafetyReportView(TypedDict):
    """What safety cost, by group."""

    object: Literal["safety_report"]
    app: str | None
    """Null: all apps."""
    first_week: str
    last_week: str
    """ISO weeks; the last one is included."""
    group_by: list[Dimension]
    currency: Literal["USD"]
    data: list[SafetyRowView]
    rest: SafetyTotalsView
    """All that no row of this page has."""
    totals: SafetyTotalsView
    """Everything."""
    notes: list[str]
    """How it is counted."""
    next_cursor: str | None


def row_view(group: LossGroup, group_by: Sequence[Dimension], counts: Counter[str]) -> SafetyRowView:
    """Return one row."""
    known: dict[str, Any] = {name: getattr(group, name) for name in group_by}
    row: SafetyRowView = {**known, **totals_view(counts)}  # type: ignore[typeddict-item]
    return row


def totals_view(counts: Counter[str]) -> SafetyTotalsView:
    """Return the sums that these counts are."""
    ended = counts[names.JOBS]
    reasons = {reason: counts[f"{names.SUBSTITUTED}.{reason}"] for reason in names.SAFETY_REASONS}

    def rate(name: str) -> float | None:
        return round(counts[name] / ended, _PLACES) if ended else None

    return {
        "jobs": {
            "ended": ended,
            "checked": counts[names.CHECKED],
            "suspected": counts[names.SUSPECTED],
            "blocked": counts[names.BLOCKED],
            "substituted": counts[names.SUBSTITUTED],
        },
        "rates": {
            "checked": rate(names.CHECKED),
            "suspected": rate(names.SUSPECTED),
            "blocked": rate(names.BLOCKED),
            "substituted": rate(names.SUBSTITUTED),
        },
        "spent": _spent(counts, "all"),
        "lost": {
            "cost": _money(sum(counts[f"{group}.usd"] for group in names.LOSSES)),
            "tokens": sum(counts[f"{group}.in"] + counts[f"{group}.out"] for group in names.LOSSES),
            "seconds": counts[names.LOST_MS] / 1000,
            "estimated_cost": _money(sum(counts[f"{group}.estimated_usd"] for group in names.LOSSES)),
            "unpriced_tokens": sum(counts[f"{group}.unpriced_tokens"] for group in names.LOSSES),
        },
        "checks": {"signalled": _checks(counts, "signalled"), "suspected": _checks(counts, "suspected")},
        "blocked": {**_spent(counts, "blocked"), "seconds": counts[names.BLOCKED_MS] / 1000},
        "rerouted": {**_spent(counts, "rerouted"), "seconds": counts[names.REROUTED_MS] / 1000},
        "given_up": _spent(counts, "given_up"),
        "substitutions": {
            "by_reason": reasons,
            "extra_cost": _money(counts[names.EXTRA]),
            "saved_cost": _money(counts[names.SAVED]),
            "compared": counts[names.COMPARED],
            "not_compared": counts[names.NOT_COMPARED],
        },
    }


def _spent(counts: Counter[str], group: Spent) -> SpentView:
    return {
        "attempts": counts[f"{group}.n"],
        "input_tokens": counts[f"{group}.in"],
        "output_tokens": counts[f"{group}.out"],
        "cost": _money(counts[f"{group}.usd"]),
        "estimated_attempts": counts[f"{group}.estimated"],
        "estimated_cost": _money(counts[f"{group}.estimated_usd"]),
        "unpriced_attempts": counts[f"{group}.unpriced"],
        "unpriced_tokens": counts[f"{group}.unpriced_tokens"],
    }


def _checks(counts: Counter[str], evidence: str) -> CheckEndingsView:
    ways: dict[str, CheckTimeView] = {
        ending: {
            "count": counts[f"check.{evidence}.{ending}.n"],
            "seconds": counts[f"check.{evidence}.{ending}.ms"] / 1000,
        }
        for ending in ENDINGS
    }
    return {
        "count": sum(way["count"] for way in ways.values()),
        "seconds": round(sum(way["seconds"] for way in ways.values()), 3),
        "by_answer": ways["answer"],
        "by_block": ways["block"],
        "by_reroute": ways["reroute"],
        "by_giving_up": ways["given_up"],
        "by_failure": ways["failure"],
    }


def _money(nano: int) -> str:
    return dollars(Decimal(nano) / NANO)
