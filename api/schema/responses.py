"""The response bodies of the native API, but for the job itself (`worker.jobs.view_schema`) and its events.

The types of plain dicts: handlers build them as fast as any dict, mypy checks each field, and the OpenAPI document is
generated from them. In the document a type is named without `View`, and its docstrings are the descriptions.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from worker.jobs.errors import QuotaLimit
from worker.jobs.model import Tier
from worker.jobs.record import Disclosure
from worker.jobs.spec import PayloadKind
from worker.jobs.view_schema import Iso, JobView, MessageState, Money, documented
from worker.safety.access import AccessStatus
from worker.safety.endpoint import Mode
from worker.store.admission.pauses import Kind as PauseKind
from worker.store.end_users.quarantine_rows import Source as QuarantineSource
from worker.store.webhooks.endpoints import State as EndpointState


class ListView(TypedDict):
    """What every list has beside its rows."""

    object: Literal["list"]
    next_cursor: str | None


@documented
class ProblemErrorView(TypedDict):
    """One bad field or parameter of the request."""

    pointer: str
    """Where the field is in the body, as a JSON pointer; empty for a parameter."""
    detail: str
    code: str
    parameter: NotRequired[str]
    """The name of the query parameter or the header."""


@documented
class QuotaLimitView(TypedDict):
    """A limit of the app that is reached."""

    name: QuotaLimit
    current: int
    maximum: int
    """The most that the app may have."""


@documented
class ProblemView(TypedDict):
    """An error as RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    """What happened and what to do next, for people."""
    code: str
    """The kind of error, for programs."""
    errors: list[ProblemErrorView]
    limit: NotRequired[QuotaLimitView]
    """With `queue_full` only: the limit of the app that is reached, its value and its bound."""


@documented
class OpenAIErrorView(TypedDict):
    """One error, as OpenAI describes it."""

    message: str
    type: str
    code: str | None
    param: str | None
    vigil: dict[str, Any]
    """Vigil's own code, and every bad field."""


class ModelProblemView(ProblemView):
    """An error of the models' routes, which clients of OpenAI call too: problem details, with OpenAI's error in it."""

    error: OpenAIErrorView


class CancellationView(TypedDict):
    """What the request to cancel found."""

    upstream_under_way: bool


class CancelledJobView(JobView):
    """The job after the request to cancel it; a running one ends a moment later."""

    cancel: CancellationView


class JobListView(ListView):
    """A page of jobs."""

    data: list[JobView]


@documented
class JobActionRowView(TypedDict):
    """What an action did to one job."""

    id: str
    status: int
    """The HTTP status of the same action on this job alone."""
    outcome: Literal["done", "unchanged", "refused"]
    """unchanged: there was nothing to do, such as for the cancellation of a job that had ended."""
    new_job: NotRequired[str]
    """Of a rerun: the id of the job that it made, now or before."""
    messages: NotRequired[int]
    """Of a redelivery: how many webhook messages are sent again."""
    problem: NotRequired[ProblemView]
    """Why it was refused."""


@documented
class JobActionsView(TypedDict):
    """What an action did to many jobs, one outcome each."""

    object: Literal["job_actions"]
    action: Literal["cancel", "rerun", "redeliver", "delete_content"]
    dry_run: bool
    matched: int | None
    """Of a dry run: how many jobs the action would be tried on, by the indexes."""
    matched_all: bool
    """False if there may be more: the count is bounded."""
    data: list[JobActionRowView]
    done: int
    unchanged: int
    refused: int
    next_cursor: str | None
    """Of a filter: send it to go on with the next jobs."""


@documented
class AuditDecisionView(TypedDict):
    """Who decided what the record tells of."""

    by: str
    key_id: NotRequired[str]
    policy_version: int | None


@documented
class AuditRecordView(TypedDict):
    """A record of the audit trail as it was stored; without `hash`, it is the record that was hashed."""

    hash: str
    """Covers this record and the hash of the job's record before it."""
    seq: int | None
    """The seq of the event; null for an action that is no event of a job."""
    type: str
    at: Iso
    job_id: str | None
    attempt: int | None
    app: str
    data: NotRequired[dict[str, Any]]
    key_id: NotRequired[str]
    requested_model: NotRequired[str]
    served_model: NotRequired[str | None]
    input_digest: NotRequired[str | None]
    """A keyed digest of the prompt."""
    output_digest: NotRequired[str | None]
    """A keyed digest of the answer; null in the record of its deletion."""
    disclosure: NotRequired[Disclosure | None]
    decision: NotRequired[AuditDecisionView | None]
    call: NotRequired[dict[str, Any]]
    """Everything that is known of the upstream call."""
    checks: NotRequired[list[dict[str, Any]]]
    cost: NotRequired[dict[str, str | None]]


class AuditListView(ListView):
    """A page of the audit trail."""

    data: list[AuditRecordView]


@documented
class AccessView(TypedDict):
    """Whether the provider lets this deployment call a model, as of the latest probe."""

    status: AccessStatus
    since: datetime | None
    probed_at: datetime | None
    request_id: str | None
    advice: str
    skipped: bool
    """True if attempts skip the model, because a real call was denied."""
    next_probe_at: datetime | None


@documented
class ModelView(TypedDict):
    """A model of the catalogue, with the prices now in US dollars per million tokens."""

    id: str
    object: Literal["model"]
    created: int
    """When its price began, in seconds since 1970, else 0; for clients of OpenAI, which require it."""
    owned_by: Literal["vigil"]
    family: str
    tier: Tier
    checked: bool
    input_per_million: Money | None
    output_per_million: Money | None
    cached_input_per_million: Money | None
    price_from: datetime | None
    """Since when the prices are in force; null: since ever."""
    price_until: datetime | None
    """Until when; null: no end is known."""
    price_checked_on: date | None
    """When the prices were last compared with the provider's."""
    efforts_refused: tuple[str, ...]
    """Values of `reasoning.effort` that the provider refuses."""
    shutdown_date: date | None
    """When the provider ends the model, if that is known."""
    aliases: tuple[str, ...]
    access: AccessView


class ModelListView(ListView):
    """All known models."""

    data: list[ModelView]


@documented
class ProviderEndpointView(TypedDict):
    """Whether the workers' VIGIL_UPSTREAM fits the provider's server; all null before the first probe."""

    upstream: Mode | None
    fits: bool | None
    best: Mode | None
    """The best mode that fits."""
    probed_at: datetime | None
    advice: str


@documented
class PauseView(TypedDict):
    """A pause: nothing in its scope starts while it is in force."""

    scope: Literal[PauseKind, "unreadable"]
    name: str | None
    """The app, the model, or the end user; null for `all`."""
    note: str
    by: str
    """The id of the key that set it."""
    since: datetime
    until: datetime | None


class ResumeResultView(TypedDict):
    """What ending a pause found: whether there was one, and how many held jobs are due now."""

    scope: PauseKind
    name: str | None
    resumed: bool
    released: int


class LedgerView(TypedDict):
    """What the ledger keeps of an end user: counts over its last `days`."""

    days: int
    checks: int
    blocks: int
    warnings: int


@documented
class QuarantinedEndUserView(TypedDict):
    """An end user whose jobs are refused."""

    end_user: str | None
    """The app's own id of the end user, if known."""
    safety_identifier: str
    source: QuarantineSource
    reason: str
    since: datetime
    until: datetime | None
    by: str
    checks: int
    blocks: int
    limits: int
    """Blocks, of all that the ledger keeps, by which the provider limited this end user."""
    ledger: LedgerView


class QuarantineListView(ListView):
    """The end users in quarantine."""

    data: list[QuarantinedEndUserView]


class HealthView(TypedDict):
    """The process responds."""

    status: Literal["ok"]
    partitions: NotRequired[dict[str, str]]
    """Of a deployment with several stores: those that can't be used now, by name, and why."""


class JobTokenView(TypedDict):
    """A token for one job."""

    token: str
    expires_at: datetime


class WebhookReceiptView(TypedDict):
    """The provider's webhook was stored, now or before."""

    received: Literal[True]
    duplicate: bool


class WebhookEndpointView(TypedDict):
    """A URL that receives events of all jobs of an app."""

    id: str
    url: str
    events: tuple[str, ...]
    payload: PayloadKind
    description: str
    state: EndpointState
    """disabled: stopped after days without an acknowledgement; what it misses waits until it is made active again."""
    created_at: datetime
    failing_since: datetime | None
    """When the first of the tries failed that were all not acknowledged; null if the last message was."""
    failed_tries: int
    disables_at: datetime | None
    """From when a failed try disables it (VIGIL_WEBHOOK_DISABLE_DAYS)."""


@documented
class WebhookEndpointWithSecretView(WebhookEndpointView):
    """A webhook endpoint with its secret, which is shown only at creation and at rotation."""

    secret: str
    """Verifies the signatures: `whsec_…`."""


class WebhookEndpointListView(ListView):
    """All endpoints of the app."""

    data: list[WebhookEndpointView]


class DeliveryView(TypedDict):
    """One try to deliver a message."""

    at: Iso
    trigger: Literal["scheduled", "manual"]
    status_code: int | None
    seconds: float
    error: str | None
    response_excerpt: str | None


@documented
class MessageView(TypedDict):
    """A webhook message about a job."""

    id: str
    type: str
    seq: int
    url: str | None
    """Null if the endpoint was deleted."""
    endpoint: str | None
    """The id of the standing endpoint; null for the job's own webhook."""
    state: MessageState
    created_at: Iso
    next_try_at: Iso | None
    deliveries: list[DeliveryView]


class MessageListView(ListView):
    """All messages of a job."""

    data: list[MessageView]
