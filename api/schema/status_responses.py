"""The response body of GET /v1/status: queue, workers, accounts, rates, circuits, pauses, pacing."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from api.schema.responses import PauseView
from worker.jobs.view_schema import documented
from worker.safety.account import AccountReason, State as AccountStateName
from worker.safety.endpoint import Mode
from worker.store.admission.circuit_breaker import OpenCircuit
from worker.store.admission.pace_state import PacingView
from worker.store.stats.queue_depth import QueueDepths
from worker.store.stats.worker_registry import WorkerHeartbeat


@documented
class AccountFamilyView(TypedDict):
    """How the provider treats the requests of one family of models, in the last hour."""

    state: AccountStateName
    because: tuple[AccountReason, ...]
    requests: int
    checked: int
    suspected: int
    blocked: int
    share: float | None
    """The share of the ordinary requests of the last half hour that was checked."""
    usual_share: float | None
    """The same share in the same hour of the days before."""
    end_users_checked: int


@documented
class AccountEvidenceView(TypedDict):
    """What the state of the account is based on."""

    because: tuple[AccountReason, ...]
    requests: int
    signalled: int
    suspected: int
    blocks: int
    notices: dict[str, int]
    """The provider's notices, by type."""
    last_notice_at: datetime | None
    window_seconds: int
    notices_window_seconds: int


@documented
class AccountView(TypedDict):
    """How the provider treats the account `default`: normal, or with more checks than usual."""

    state: AccountStateName
    families: dict[str, AccountFamilyView]
    evidence: AccountEvidenceView


@documented
class ProviderAccountView(TypedDict):
    """An account at the provider: how it is treated, and whether it may be called."""

    name: str
    state: AccountStateName
    because: tuple[AccountReason, ...]
    circuit: Literal["closed", "open", "half_open"]
    """Open while its quota, key or organisation is at fault: its jobs are held, those of other accounts are not."""
    circuit_reason: str | None
    families: dict[str, AccountFamilyView]
    notices: dict[str, int]
    """The provider's notices of the last days, by type."""


@documented
class ConfiguredAccountView(ProviderAccountView):
    """An account at the provider with its settings, and what is bound to it. It has no secret."""

    organization: str | None
    project: str | None
    base_url: str | None
    """Null for the provider's own address."""
    upstream: Mode
    receives_webhooks: bool
    """Whether it has a webhook secret, so that its safety notices are accepted."""
    apps: list[str]
    """The apps that it serves, whatever the model is. One that no account names uses that of the model."""
    models: list[str]
    model_families: list[str]


class AccountListView(TypedDict):
    """The accounts at the provider, `default` first."""

    object: Literal["list"]
    data: list[ConfiguredAccountView]
    next_cursor: None


class RatesView(TypedDict):
    """Shares of requests in the window, from 0 to 1; null where there was no request."""

    checks: float | None
    blocks: float | None
    substitutions: float | None
    window_seconds: int


@documented
class SilenceView(TypedDict):
    """From when on silence of a model suggests a safety check, for jobs that give no `silence_seconds`."""

    model: str
    after_seconds: float
    usual_seconds: float | None
    """The silence that 99 of 100 answered calls do not exceed; null while fewer than 200 were measured."""
    samples: int
    """Calls of the last eight days without any check."""
    suspected: int
    """Calls whose silence was taken for a check, and that were answered after all."""


class PartitionView(TypedDict):
    """One store of a deployment with several."""

    name: str
    away: str | None
    """Why it can't be used now; null if it can."""


@documented
class StatusView(TypedDict):
    """The state of the deployment."""

    queue: QueueDepths
    workers: list[WorkerHeartbeat]
    account: AccountView
    accounts: list[ProviderAccountView]
    """Of each account at the provider, `default` first."""
    rates: RatesView
    circuits: list[OpenCircuit]
    pauses: list[PauseView]
    pacing: PacingView
    silences: list[SilenceView]
    partitions: NotRequired[list[PartitionView]]
    """Of a deployment with several stores: each, home first. One that is away is missing in everything above."""
