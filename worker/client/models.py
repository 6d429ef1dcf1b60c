"""A job and its events as types (contract section 3); the other answers are in `answers.py`.

An older client must live with a newer server: fields that it doesn't know are kept (`model_extra`), words that it
doesn't know stay strings, and `raw` is the JSON as it came. Nothing is shown of content in a repr.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from worker.jobs.record import BlockCategory, Carrier, DecidedBy, DisclosureReason
from worker.jobs.states import (
    TERMINAL,
    CheckEnd,
    Evidence,
    Outcome,
    Purpose,
    RetryModelState,
    SafetyState,
    Status as JobStatus,
)

T = TypeVar("T")
Open = Annotated[T | str, Field(union_mode="left_to_right")]
"""One of the known words, or whatever a newer server says."""

DELTA: Final = "job.output.delta"
TERMINAL_EVENTS: Final = frozenset(f"job.{status.value}" for status in TERMINAL)


class ApiModel(BaseModel):
    """The base: frozen, tolerant, silent about content."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True, protected_namespaces=())
    SHOWN: ClassVar[tuple[str, ...]] = ()
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(data)
        if isinstance(data, dict):
            made._raw = data  # noqa: SLF001  it is one of us
        return made

    @property
    def raw(self) -> dict[str, Any]:
        """The JSON as it came."""
        return self._raw

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return ((name, getattr(self, name)) for name in self.SHOWN)


class Usage(ApiModel):
    """Tokens; `estimated` when Vigil counted them itself."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    estimated: bool = False


class Cost(ApiModel):
    """Exact money; `wasted` went into attempts that gave no answer."""

    currency: str = "USD"
    total: Decimal
    wasted: Decimal = Decimal(0)


class Disclosure(ApiModel):
    """The statement that another model served than was asked for."""

    SHOWN = ("requested_model", "served_model", "reason")
    requested_model: str
    served_model: str
    reason: Open[DisclosureReason]
    decided_by: Open[DecidedBy]
    capability: Open[Literal["lower", "same", "higher", "unknown"]] = "unknown"
    at: datetime | None = None
    message: str = ""


class Check(ApiModel):
    """A span in which a safety check was signalled, or suspected from silence."""

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
    """What the provider's safety team told of the job by webhook, perhaps long after its end."""

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


class Safety(ApiModel):
    """What was seen of safety checks."""

    SHOWN = ("state",)
    state: Open[SafetyState] = SafetyState.NONE
    checks: tuple[Check, ...] = ()
    block: Block | None = None
    account_flagged: bool = False
    notices: tuple[Notice, ...] = ()


class Offer(ApiModel):
    """An open offer of a faster model; `Vigil.retry` accepts it."""

    SHOWN = ("model", "until")
    model: str
    since: datetime | None = None
    until: datetime | None = None


class Hold(ApiModel):
    """Why the job is held back."""

    SHOWN = ("scope", "reason")
    scope: str = ""
    reason: str = ""
    since: datetime | None = None


class ProviderError(ApiModel):
    """What the provider said, by its codes."""

    SHOWN = ("code", "type", "http_status", "request_id")
    code: str | None = None
    type: str | None = None
    http_status: int | None = None
    request_id: str | None = None


class JobError(ApiModel):
    """Why it ended badly; `advice` is one sentence that says what to do next."""

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
    resumed: int = 0
    sequence: int | None = None


class JobWebhook(ApiModel):
    """The job's own webhook, and how its newest message fares."""

    SHOWN = ("state",)
    url: str
    state: str = "pending"


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
    not_before: datetime | None = None
    priority: str = "default"
    requested_model: str
    served_model: str | None = None
    disclosure: Disclosure | None = None
    output_text: str | None = None
    output: tuple[dict[str, Any], ...] = ()
    draft: str | None = None
    draft_model: str | None = None
    refusal: str | None = None
    usage: Usage | None = None
    cost: Cost | None = None
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
        """Whether the job has ended, in whatever status: nothing of it changes any more."""
        return self.status in TERMINAL or self.finished_at is not None

    @property
    def completed(self) -> bool:
        """Whether there is an answer; a refusal is one."""
        return self.status == JobStatus.COMPLETED


class Cancellation(ApiModel):
    """What a cancel met."""

    SHOWN = ("upstream_under_way",)
    upstream_under_way: bool = False


class CancelledJob(Job):
    """The job after a cancel: a running one is asked to stop and ends a moment later."""

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
        """The new text, of a `job.output.delta`."""
        return str(self.data.get("delta", "")) if self.type == DELTA else None

    @property
    def offset(self) -> int:
        """The characters of the attempt's text before this delta."""
        offset = self.data.get("offset", 0)
        return offset if isinstance(offset, int) else 0

    @property
    def terminal(self) -> bool:
        """Whether it is the job's last one."""
        return self.type in TERMINAL_EVENTS
