"""The types of a job and its events; the other responses are in `responses.py`.

An older client works with a newer server: unknown fields are kept (`model_extra`), unknown values stay strings, and
`raw` is the JSON as it came. A repr never shows content.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from .enums import (
    TERMINAL,
    BlockCategory,
    Carrier,
    CheckEnd,
    DecidedBy,
    DisclosureReason,
    Evidence,
    JobStatus,
    Outcome,
    Purpose,
    RetryModelState,
    SafetyState,
)

T = TypeVar("T")
Open = Annotated[T | str, Field(union_mode="left_to_right")]
"""One of the known values, or any string that a newer server sends."""

DELTA: Final = "job.output.delta"
TERMINAL_EVENTS: Final = frozenset(f"job.{status.value}" for status in TERMINAL)


class ApiModel(BaseModel):
    """The base: frozen, accepts unknown fields, shows only the fields in SHOWN in a repr."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True, protected_namespaces=())
    SHOWN: ClassVar[tuple[str, ...]] = ()
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(data)
        if isinstance(data, dict):
            made._raw = data  # noqa: SLF001  an instance of this class
        return made

    @property
    def raw(self) -> dict[str, Any]:
        """Return the JSON as it came."""
        return self._raw

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return ((name, getattr(self, name)) for name in self.SHOWN)


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


class Block(ApiModel):
    """Content that the provider withheld, and what to do next."""

    SHOWN = ("category", "code")
    category: Open[BlockCategory] = "unknown"
    code: str = ""
    carrier: Open[Carrier] | None = None
    after_output: bool = False
    advice: str = ""


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
    action: str
    at: datetime
    because: str = ""


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


class Offer(ApiModel):
    """An open offer of a faster model; `Vigil.retry` accepts it."""

    SHOWN = ("model", "until")
    model: str
    since: datetime | None = None
    until: datetime | None = None


class Hold(ApiModel):
    """Why the job is on hold."""

    SHOWN = ("scope", "reason")
    scope: str = ""
    reason: str = ""
    since: datetime | None = None


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
    organization: str | None = None
    project: str | None = None
    started_at: datetime | None = None
    first_event_at: datetime | None = None
    first_output_at: datetime | None = None
    finished_at: datetime | None = None
    http_status: int | None = None
    processing_ms: int | None = None
    error: JobError | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    price: dict[str, Any] | None = None
    resumed: int = 0
    sequence: int | None = None


class JobWebhook(ApiModel):
    """The job's own webhook, and the state of its newest message."""

    SHOWN = ("state",)
    url: str
    state: str = "pending"


class QueueEta(ApiModel):
    """In how many seconds a waiting job probably starts, and from how many measured calls that is estimated."""

    SHOWN = ("p50_seconds", "p90_seconds")
    p50_seconds: float
    p90_seconds: float
    samples: int = 0


class QueuePlace(ApiModel):
    """Where a queued job stands among its app's waiting jobs, from 1."""

    SHOWN = ("position",)
    position: int
    eta: QueueEta | None = None


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
    not_before: datetime | None = None
    priority: str = "default"
    requested_model: str
    served_model: str | None = None
    disclosure: Disclosure | None = None
    output_text: str | None = None
    output: tuple[dict[str, Any], ...] = ()
    draft: str | None = None
    draft_model: str | None = None
    draft_state: str | None = None
    refusal: str | None = None
    usage: Usage | None = None
    cost: Cost | None = None
    cost_reason: str | None = None
    safety: Safety = Safety()
    offer: Offer | None = None
    hold: Hold | None = None
    attempts: tuple[Attempt, ...] = ()
    error: JobError | None = None
    webhook: JobWebhook | None = None
    metadata: dict[str, str] = {}
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
