"""The types of a job and its events; the other responses are in `responses.py`.

An older client works with a newer server: unknown fields are kept (`model_extra`), unknown values stay strings, and
`raw` is the JSON as it came. A repr never shows content.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from .api_model import ApiModel, Open
from .enums import (
    TERMINAL,
    BlockCategory,
    BlockScope,
    Carrier,
    CheckEnd,
    ContentState,
    DecidedBy,
    DisclosureReason,
    DraftState,
    Evidence,
    JobStatus,
    MessageCut,
    MessageState,
    NextActionKind,
    NextActionRule,
    Outcome,
    Purpose,
    RetryModelState,
    SafetyState,
)
from .outcome_models import Billed, Consent, Offer
from .policy import Priority
from .waiting import QueuePlace, WaitingFor

DELTA: Final = "job.output.delta"
TERMINAL_EVENTS: Final = frozenset(f"job.{status.value}" for status in TERMINAL)


class Usage(ApiModel):
    """Token counts; `estimated` if Vigil counted them itself."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    estimated: bool = False
    cache_write_tokens: int = 0
    cache_write_12h_tokens: int = 0


class Cost(ApiModel):
    """The exact cost; `wasted` is the part spent on attempts that gave no answer."""

    currency: str = "USD"
    total: Decimal
    wasted: Decimal = Decimal(0)


class Disclosure(ApiModel):
    """The statement that another model answered than the requested one."""

    SHOWN = ("requested_model", "served_model", "reason")
    requested_model: str
    served_model: str
    reason: Open[DisclosureReason]
    decided_by: Open[DecidedBy]
    capability: Open[Literal["lower", "same", "higher", "unknown"]] = "unknown"
    at: datetime | None = None
    message: str = ""


class Check(ApiModel):
    """An interval in which a safety check was signalled by the provider, or suspected from silence."""

    SHOWN = ("attempt", "evidence", "started_at", "ended_at")
    attempt: int
    evidence: Open[Evidence]
    started_at: datetime
    ended_at: datetime | None = None
    seconds: float | None = None
    use_cases: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    retry_model: str | None = None
    retry_model_state: Open[RetryModelState] = RetryModelState.ABSENT
    repeats: int = 0
    ended_by: Open[CheckEnd] | None = None


class Misalignment(ApiModel):
    """What the provider says of the kind of misalignment, and of its review."""

    SHOWN = ("error_type",)
    error_type: str | None = None
    review_target: str | None = None


class Block(ApiModel):
    """Content that the provider withheld, and what to do next."""

    SHOWN = ("category", "code")
    category: Open[BlockCategory] = "unknown"
    code: str = ""
    carrier: Open[Carrier] | None = None
    after_output: bool = False
    advice: str = ""
    scope: Open[BlockScope] = "request"
    misalignment: Misalignment | None = None


class Notice(ApiModel):
    """What the provider reported about the job by webhook, perhaps long after its end."""

    SHOWN = ("id", "type", "about")
    id: str
    type: str
    at: datetime | None = None
    received_at: datetime | None = None
    about: Open[Literal["request", "end_user", "account"]] = ""
    request_id: str | None = None
    model: str | None = None
    category: str | None = None
    subject: str | None = None
    request_paused: bool | None = None
    message: str = ""
    advice: str = ""


class NextAction(ApiModel):
    """What is done next about a check that still runs, when, and by which rule."""

    SHOWN = ("action", "at")
    action: Open[NextActionKind]
    at: datetime
    because: Open[NextActionRule] = ""


class Safety(ApiModel):
    """The safety checks, block and notices of a job."""

    SHOWN = ("state",)
    state: Open[SafetyState] = SafetyState.NONE
    checks: tuple[Check, ...] = ()
    block: Block | None = None
    account_flagged: bool = False
    notices: tuple[Notice, ...] = ()
    message: str | None = None
    next_action: NextAction | None = None


class Hold(ApiModel):
    """Why the job is on hold."""

    SHOWN = ("scope", "reason")
    scope: str = ""
    reason: str = ""
    since: datetime | None = None
    by: str | None = None
    account: str | None = None


class ProviderError(ApiModel):
    """The provider's error, as codes."""

    SHOWN = ("code", "type", "http_status", "request_id")
    code: str | None = None
    type: str | None = None
    http_status: int | None = None
    request_id: str | None = None


class JobError(ApiModel):
    """Why the job or the attempt failed; `advice` is one sentence that says what to do next."""

    SHOWN = ("code",)
    type: str = ""
    code: str
    message: str = ""
    advice: str = ""
    provider: ProviderError | None = None


class AppliedPrice(ApiModel):
    """The row of prices that an attempt was charged by, and the rules that applied."""

    SHOWN = ("model", "valid_from", "tier")
    model: str
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    checked_on: date | None = None
    tier: str = "standard"
    factor: Decimal = Decimal(1)
    window: str | None = None
    regional: bool = False
    long_context: bool = False
    notes: tuple[str, ...] = ()


class InputTransformation(ApiModel):
    """One item of the input that the provider changed by itself."""

    SHOWN = ("action", "type", "reason")
    action: str = ""
    type: str | None = None
    reason: str | None = None
    id: str | None = None


class InputChanges(ApiModel):
    """What the provider removed from the input by itself before the model read it."""

    SHOWN = ("removed", "reasons")
    removed: int = 0
    reasons: tuple[str, ...] = ()
    message: str = ""


class Attempt(ApiModel):
    """One call to one model."""

    SHOWN = ("number", "model", "outcome")
    number: int
    model: str
    served_model: str | None = None
    purpose: Open[Purpose] | None = None
    because: Open[DisclosureReason] | None = None
    outcome: Open[Outcome] | None = None
    mode: str | None = None
    client_request_id: str | None = None
    request_id: str | None = None
    response_id: str | None = None
    account: str = "default"
    organization: str | None = None
    project: str | None = None
    started_at: datetime | None = None
    first_event_at: datetime | None = None
    first_output_at: datetime | None = None
    longest_silence_seconds: float | None = None
    finished_at: datetime | None = None
    http_status: int | None = None
    processing_ms: int | None = None
    error: JobError | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    price: AppliedPrice | None = None
    resumed: int = 0
    sequence: int | None = None
    served_raw: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    service_tier: str | None = None
    rate_limits: dict[str, str] = {}
    provider_message: str | None = None
    provider_message_cut: tuple[Open[MessageCut], ...] = ()
    input_transformations: tuple[InputTransformation, ...] = ()


class JobWebhook(ApiModel):
    """The job's own webhook, and the state of its newest message."""

    SHOWN = ("state",)
    url: str
    state: Open[MessageState] = "pending"


class Job(ApiModel):
    """A job as it is at one moment."""

    SHOWN = ("id", "status")
    id: str
    status: Open[JobStatus]
    reason: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_attempt_at: datetime | None = None
    queue: QueuePlace | None = None
    waiting_for: WaitingFor | None = None
    not_before: datetime | None = None
    priority: Open[Priority] = "default"
    requested_model: str
    served_model: str | None = None
    disclosure: Disclosure | None = None
    output_text: str | None = None
    output: tuple[dict[str, Any], ...] = ()
    draft: str | None = None
    draft_model: str | None = None
    draft_state: Open[DraftState] | None = None
    refusal: str | None = None
    input_changes: InputChanges | None = None
    unfiltered: bool = False
    usage: Usage | None = None
    cost: Cost | None = None
    cost_reason: Open[Literal["price_unknown"]] | None = None
    billed: Billed | None = None
    safety: Safety = Safety()
    offer: Offer | None = None
    consent: Consent | None = None
    hold: Hold | None = None
    attempts: tuple[Attempt, ...] = ()
    error: JobError | None = None
    webhook: JobWebhook | None = None
    metadata: dict[str, str] = {}
    rerun_of: str | None = None
    group: str | None = None
    content: Open[ContentState] = "kept"
    content_removed_at: datetime | None = None
    unreadable: tuple[str, ...] = ()
    urls: dict[str, str] = {}

    @property
    def settled(self) -> bool:
        """Return whether the job has ended, in any status; it changes no more."""
        return self.status in TERMINAL or self.finished_at is not None

    @property
    def completed(self) -> bool:
        """Return whether the job completed; a refusal counts as an answer."""
        return self.status == JobStatus.COMPLETED


class Cancellation(ApiModel):
    """What the request to cancel found."""

    SHOWN = ("upstream_under_way",)
    upstream_under_way: bool = False


class CancelledJob(Job):
    """The job after the request to cancel it; a running job ends a moment later."""

    cancel: Cancellation = Cancellation()


class Event(ApiModel):
    """One event of a job. A delta of its text has an `offset` and no `seq`."""

    SHOWN = ("type", "seq", "attempt")
    type: str
    seq: int | None = None
    at: datetime | None = None
    job_id: str = ""
    attempt: int | None = None
    data: dict[str, Any] = {}

    @property
    def delta(self) -> str | None:
        """Return the new text of a `job.output.delta`, or None for other events."""
        return str(self.data.get("delta", "")) if self.type == DELTA else None

    @property
    def offset(self) -> int:
        """Return the number of characters of the attempt's text before this delta."""
        offset = self.data.get("offset", 0)
        return offset if isinstance(offset, int) else 0

    @property
    def terminal(self) -> bool:
        """Return whether this is the job's last event."""
        return self.type in TERMINAL_EVENTS
