"""The body of `POST /v1/jobs?dry_run=true`: what would happen to the job."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict

from worker.jobs.record import AppliedPrice
from worker.jobs.view_schema import JobView, Money, StartEstimateView, documented
from worker.safety.access import AccessStatus

StandInPurpose = Literal["faster", "fallback"]
CostReason = Literal["price_unknown", "output_unbounded"]
WarningCode = Literal["cost_limit", "effort_refused", "circuit_open", "paused"]


class InputTokensView(TypedDict):
    """How many tokens the input may be, estimated by its size."""

    likely: int
    highest: int


@documented
class DryRunCostView(TypedDict):
    """The range of what one attempt costs."""

    currency: str
    lowest: Money | None
    """With the input as estimated and no output."""
    highest: Money | None
    reason: CostReason | None
    """Why a bound is null."""
    input_tokens: InputTokensView
    max_output_tokens: int | None
    """The limit that would be sent; null: none."""
    fits_cap: bool
    """False if `max_cost_usd` leaves no room for an attempt."""
    price: AppliedPrice | None


@documented
class DryRunAccessView(TypedDict):
    """What is known of the access to the model."""

    status: AccessStatus
    since: datetime | None
    advice: str
    skipped: bool
    """True if attempts skip the model, because a real call was denied."""
    shutdown_date: date | None
    """When the provider ends the model, if that is known."""


@documented
class StandInView(TypedDict):
    """A model that may take over."""

    model: str
    purpose: StandInPurpose
    """`faster`: by the rule for delays; `fallback`: after an error."""
    effort_accepted: bool
    """False if the provider refuses the request's `reasoning.effort` for this model."""
    account: str
    access: AccessStatus
    highest: Money | None
    """The most that one attempt costs; null if that is not known."""


@documented
class QueuePositionView(TypedDict):
    """Where the job would be in the queue."""

    position: int
    """Its place among the app's own waiting jobs, from 1."""
    eta: StartEstimateView | None
    queued: int
    """How many jobs of all apps wait."""
    running: int
    """How many jobs of all apps run."""


class DryRunWarningView(TypedDict):
    """What would keep the job from running or make it fail, as far as it is known now."""

    code: WarningCode
    detail: str


class DryRunView(TypedDict):
    """What submitting the job would do; nothing was created."""

    object: Literal["dry_run"]
    model: str
    account: str
    """The account at the provider that would serve it."""
    cost: DryRunCostView
    access: DryRunAccessView
    stand_ins: list[StandInView]
    queue: QueuePositionView
    warnings: list[DryRunWarningView]


JobOrDryRun = TypeAliasType(
    "JobOrDryRun", Annotated[JobView | DryRunView, Field(description="The job; with `dry_run=true`, what it would do.")]
)
