"""Defines a job as its app sees it: the one model behind `view.job_view`, the OpenAPI document and webhook bodies.

These are the types of plain dicts, so a view costs nothing to build and mypy checks it field by field. Parts of the
record that are shown unchanged (AppliedPrice, JobError, Disclosure, Offer …) are the record's own models. In
the document a type is named without `View`; the docstrings of types and fields are its descriptions.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic reads that of `typing` from Python 3.12 on only

from worker.jobs.offers import Consent
from worker.jobs.record import (
    AppliedPrice,
    BlockCategory,
    BlockScope,
    Carrier,
    Disclosure,
    DisclosureReason,
    InputTransformation,
    JobError,
    Misalignment,
)
from worker.jobs.spec import Priority
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, RetryModelState, SafetyState, Status

documented = with_config(ConfigDict(use_attribute_docstrings=True))
"""Makes the docstrings of a TypedDict's fields the descriptions of its schema."""

Money = Annotated[str, Field(pattern=r"^\d+\.\d{6,}$", description="US dollars, exact, with six decimals or more.")]
Iso = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A time that is text already."""
DraftState = Literal["standing", "superseded", "withdrawn"]
MessageState = Literal["pending", "delivered", "exhausted", "gone"]
MessageCut = Literal["quoted", "secret", "too_long", "not_compared"]
"""Why a provider's message is not shown word for word: it quotes, holds a secret, is too long, or was not compared."""
NoticeAbout = Literal["request", "end_user", "account"]
UnreadablePart = Literal["input", "metadata", "webhook", "output"]


class CostView(TypedDict):
    """What the job cost; `wasted` is the part spent on attempts that gave no answer."""

    currency: str
    total: Money
    wasted: Money


@documented
class CheckView(TypedDict):
    """An interval in which a safety check was signalled by the provider, or suspected from silence."""

    attempt: int
    evidence: Evidence
    started_at: datetime
    ended_at: datetime | None
    seconds: float | None
    """How long it lasted; null while it lasts."""
    use_cases: tuple[str, ...]
    reasons: tuple[str, ...]
    retry_model: str | None
    """The model that the provider offers instead."""
    retry_model_state: RetryModelState
    repeats: int
    """How often the provider repeated the notice."""
    ended_by: CheckEnd | None


@documented
class NoticeView(TypedDict):
    """What the provider's safety team reported by webhook, perhaps long after the job's end."""

    id: str
    type: str
    at: datetime
    received_at: datetime
    about: NoticeAbout
    request_id: str | None
    model: str | None
    category: str | None
    subject: str | None
    """The id of the provider's case or alert."""
    request_paused: bool | None
    message: str
    advice: str


@documented
class JobBlockView(TypedDict):
    """Content withheld by the provider, and what to do next."""

    category: BlockCategory
    code: str
    carrier: Carrier
    after_output: bool
    advice: str
    scope: BlockScope
    """end_user: the provider limits this end user's access to the model, whatever the request is."""
    misalignment: Misalignment | None
    """What the provider says of the kind of misalignment and of its review; null if it says nothing."""


class JobNextActionView(TypedDict):
    """What is done about a running check, when, and by which rule of the policy."""

    action: Literal["offer", "switch", "race", "draft", "expire"]
    at: datetime
    because: Literal["after_seconds", "silence_seconds", "deadline", "queue_deadline", "run_deadline"]


class StartEstimateView(TypedDict):
    """In how many seconds a waiting job starts: half start before p50, nine of ten before p90."""

    p50_seconds: float
    p90_seconds: float
    samples: int


@documented
class QueuePlaceView(TypedDict):
    """Where a waiting job stands."""

    position: int
    """Its place among the app's own waiting jobs, from 1."""
    eta: StartEstimateView | None
    """Null while too few calls were measured."""


WaitReason = Literal["provider_rate", "account_checks", "model_concurrency", "end_user_concurrency"]
"""What keeps a waiting job: the provider's limits (or rpm, tpm of models.toml); the slower pace while the provider
checks most requests; as many jobs at once as the model, or the end user, may have."""


@documented
class WaitingForView(TypedDict):
    """A limit that keeps a waiting job from calling its model. It holds no slot, and no attempt is counted."""

    reason: WaitReason
    account: str | None
    """The provider account whose limit it is; null for a limit of the end user."""
    model: str | None
    """The model, or with `account_checks` the family; null for a limit of the end user."""
    since: datetime
    until: datetime | None
    """About when its turn comes, as far as the limit's rate tells; null where that is not known."""


@documented
class OfferView(TypedDict):
    """An open offer to run on a faster model."""

    model: str
    since: datetime
    until: datetime | None
    message: str
    """What happens if it is accepted, in one sentence."""
    policy_version: int | None
    """The version of the delay policy that made it."""
    terms_digest: str
    """The digest of sentence, models, time and delay rule: an accepted offer's `consent` names the same."""


class JobHoldView(TypedDict):
    """A wait that an open circuit or a pause imposes."""

    scope: str
    reason: str
    since: datetime
    by: str | None
    account: str | None
    """The account at the provider that is at fault; null for anything else, such as a pause."""


class SafetyView(TypedDict):
    """The safety checks of a job, its block, and the provider's notices about it."""

    state: SafetyState
    checks: list[CheckView]
    block: JobBlockView | None
    account_flagged: bool
    notices: list[NoticeView]
    message: str | None
    """One sentence on the check that runs now."""
    next_action: JobNextActionView | None
    """What happens to the job if the check goes on."""


class JobUsageView(TypedDict):
    """Tokens of the attempt that answered; without one, of all attempts together."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int
    estimated: bool
    cache_write_tokens: int
    cache_write_12h_tokens: int


class AttemptUsageView(TypedDict, total=False):
    """Tokens of one attempt; empty if none are known."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int
    estimated: bool
    cache_write_tokens: int
    cache_write_12h_tokens: int


@documented
class AttemptView(TypedDict):
    """One call to one model."""

    number: int
    model: str
    served_model: str | None
    purpose: Purpose
    because: DisclosureReason | None
    """Why another model than the requested one was called."""
    outcome: Outcome | None
    """Null while the call may be under way."""
    mode: str
    client_request_id: str
    """Sent as X-Client-Request-Id."""
    request_id: str | None
    response_id: str | None
    account: str
    """The account at the provider that was called, by the name that operators gave it."""
    organization: str | None
    project: str | None
    started_at: datetime
    first_event_at: datetime | None
    first_output_at: datetime | None
    longest_silence_seconds: float | None
    """The longest time without output; null while it runs, or if a worker took it up later."""
    finished_at: datetime | None
    http_status: int | None
    processing_ms: int | None
    error: JobError | None
    usage: AttemptUsageView
    cost: Money | None
    """Null for a model without a price."""
    price: AppliedPrice | None
    """The row of prices that the attempt was charged by, and the rules that applied."""
    resumed: int
    """How often reading was resumed after a broken connection."""
    sequence: int | None
    served_raw: dict[str, str]
    """The served model as the provider named it, by place: header, created, terminal."""
    flags: tuple[str, ...]
    service_tier: str | None
    rate_limits: dict[str, str]
    provider_message: str | None
    """The provider's own message without what it quotes of the request or the answer, and without secrets."""
    provider_message_cut: list[MessageCut]
    """Why the message is not shown word for word; empty if it is."""
    input_transformations: tuple[InputTransformation, ...]
    """What the provider changed in the input by itself."""


@documented
class InputChangesView(TypedDict):
    """What the provider removed from the input by itself before the model read it."""

    removed: int
    """How many items."""
    reasons: list[str]
    message: str


@documented
class BilledView(TypedDict):
    """Whether the provider bills what ran when a job was cancelled."""

    state: Literal["yes", "no", "unknown"]
    """unknown: the provider did not say what it had used; its usage page tells."""
    cost: Money | None
    """What that costs, a part of the job's `cost`; null if it is not known."""
    estimated: bool
    """Vigil counted tokens itself, because the provider did not."""
    message: str


class JobWebhookView(TypedDict):
    """The job's own webhook, and the state of its newest message."""

    url: str
    state: MessageState


class JobUrlsView(TypedDict):
    """The URLs of the job and its resources."""

    self: str
    events: str
    cancel: str
    support_packet: str


@documented
class JobView(TypedDict):
    """A job as it is at one moment."""

    id: str
    object: Literal["job"]
    status: Status
    reason: str | None
    """Why a scheduled job waits, or how the answer of a completed one was cut short."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    next_attempt_at: datetime | None
    queue: QueuePlaceView | None
    waiting_for: WaitingForView | None
    """The limit that a waiting job waits for; null if it waits for none."""
    not_before: datetime | None
    priority: Priority
    requested_model: str
    served_model: str | None
    disclosure: Disclosure | None
    output_text: str | None
    """Set for completed jobs only."""
    output: list[dict[str, Any]]
    """The output items as the provider sent them; empty unless the job is completed."""
    draft: str | None
    """A faster model's answer; kept once the job's own answer supersedes it, gone once it is withdrawn."""
    draft_model: str | None
    """The model that wrote the draft."""
    draft_state: DraftState | None
    refusal: str | None
    """The model's own refusal, which is an answer."""
    input_changes: InputChangesView | None
    """Null if the provider removed nothing."""
    unfiltered: bool
    """The provider answered although its safety filter was not available: the answer was not filtered."""
    usage: JobUsageView | None
    cost: CostView | None
    cost_reason: Literal["price_unknown"] | None
    """Why `cost` is null."""
    billed: BilledView | None
    """Of a cancelled job only: whether the provider bills what was running."""
    safety: SafetyView
    offer: OfferView | None
    consent: Consent | None
    """Who accepted an offer, when, and the terms that it was shown with."""
    hold: JobHoldView | None
    attempts: list[AttemptView]
    error: JobError | None
    webhook: JobWebhookView | None
    metadata: dict[str, str]
    rerun_of: str | None
    """The job that this one runs again."""
    group: str | None
    """The group of its batch."""
    content: Literal["kept", "deleted", "not_stored", "locked"]
    """Whether input and output are still stored; locked: some of it can't be read."""
    unreadable: list[UnreadablePart]
    content_removed_at: datetime | None
    urls: JobUrlsView
