"""Defines the events of a job: what can happen, and with which data.

Each event is frozen and validated when it is made; `fold.apply` checks whether it may follow the events before it.
Facts hold no content: no prompt, no output, no address.
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, JsonValue

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.frozen import Stored
from worker.jobs.record import (
    AppliedPrice,
    Block,
    CallTerms,
    Disclosure,
    DisclosureReason,
    InputTransformation,
    JobError,
    NextAction,
    ProviderError,
    Removal,
    Usage,
)
from worker.jobs.spec import Policy, Priority
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, RetryModelState, ScheduledReason


class Fact(Stored):
    """The data of one event; `TYPE` is its name on the wire."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)  # older releases stored fewer fields
    TYPE: ClassVar[str]


class Queued(Fact):
    """The job was accepted; the fact has everything that never changes."""

    TYPE = "job.queued"
    app: str
    key_id: str
    requested_model: str
    policy: Policy = Policy()
    priority: Priority = "default"
    safety_identifier: str | None = None
    input_digest: str | None = None
    store: bool = True
    not_before: datetime | None = None
    trace: dict[str, str] = {}
    webhook_events: tuple[str, ...] = ()
    optional: dict[str, JsonValue] = Field(default={}, exclude_if=lambda value: not value)


class Scheduled(Fact):
    """The job waits on purpose until a time, or until a hold is lifted."""

    TYPE = "job.scheduled"
    reason: ScheduledReason
    until: datetime | None = None
    hold_scope: str | None = None
    hold_reason: str | None = None
    hold_by: str | None = None  # the key that paused it
    hold_provider: ProviderError | None = Field(default=None, exclude_if=lambda value: value is None)
    hold_account: str | None = Field(default=None, exclude_if=lambda value: value is None)  # not the default one


class Released(Fact):
    """A wait ended early: the job is in the queue again."""

    TYPE = "job.released"


class Started(Fact):
    """A worker holds the lease and runs the job."""

    TYPE = "job.started"
    worker: str
    generation: int


class AttemptStarted(Fact):
    """The intent to call upstream: recorded before the call is made."""

    TYPE = "job.attempt.started"
    model: str
    purpose: Purpose
    mode: str
    client_request_id: str
    because: DisclosureReason | None = None  # why another model than the requested one is called
    proxied: bool = False  # an egress proxy is configured; the support packet shows it
    account: str = Field(default=DEFAULT_ACCOUNT, exclude_if=lambda value: value == DEFAULT_ACCOUNT)
    terms: CallTerms | None = Field(default=None, exclude_if=lambda value: value is None)


class AttemptUpdated(Fact):
    """New facts about the running call; None leaves a field unchanged."""

    TYPE = "job.attempt.updated"
    request_id: str | None = None
    response_id: str | None = None
    organization: str | None = None
    project: str | None = None
    http_status: int | None = None
    processing_ms: int | None = None
    first_event_at: datetime | None = None
    first_output_at: datetime | None = None
    sequence: int | None = None
    resumed: int | None = None
    mode: str | None = None


class AttemptFinished(Fact):
    """The attempt's outcome, what it used and what it cost."""

    TYPE = "job.attempt.finished"
    outcome: Outcome
    served_model: str | None = None
    served_raw: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    service_tier: str | None = None
    rate_limits: dict[str, str] = {}
    http_status: int | None = None
    error: JobError | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    price: AppliedPrice | None = Field(default=None, exclude_if=lambda value: value is None)
    cost_as_requested: Decimal | None = Field(default=None, exclude_if=lambda value: value is None)
    sequence: int | None = None
    first_output_at: datetime | None = None
    input_transformations: tuple[InputTransformation, ...] = Field(default=(), exclude_if=lambda value: not value)
    longest_silence_seconds: float | None = Field(default=None, exclude_if=lambda value: value is None)


class CheckStarted(Fact):
    """A safety check was signalled, or is suspected because of silence."""

    TYPE = "job.check.started"
    evidence: Evidence
    use_cases: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    retry_model: str | None = None
    retry_model_state: RetryModelState = RetryModelState.ABSENT
    next_action: NextAction | None = Field(default=None, exclude_if=lambda value: value is None)


class CheckUpdated(Fact):
    """The provider told more of the attempt's running check or, for late repeats, of its last one."""

    TYPE = "job.check.updated"
    evidence: Evidence
    use_cases: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    retry_model: str | None = None
    retry_model_state: RetryModelState = RetryModelState.ABSENT
    repeats: int = 0
    next_action: NextAction | None = Field(default=None, exclude_if=lambda value: value is None)


class CheckEnded(Fact):
    """The check ended, as inferred from what came next: the wire has no event for it."""

    TYPE = "job.check.ended"
    ended_by: CheckEnd
    repeats: int = 0


class OfferMade(Fact):
    """The app may accept a faster model."""

    TYPE = "job.offer.made"
    model: str
    until: datetime | None = None
    policy_version: int | None = Field(default=None, exclude_if=lambda value: value is None)


class OfferAccepted(Fact):
    """The app accepted: who, and by which version of the delay policy and which terms the offer was made."""

    TYPE = "job.offer.accepted"
    model: str
    by: str
    policy_version: int | None = Field(default=None, exclude_if=lambda value: value is None)
    terms_digest: str | None = Field(default=None, exclude_if=lambda value: value is None)


class OfferExpired(Fact):
    """The offer is no longer open."""

    TYPE = "job.offer.expired"
    because: Literal["cleared", "settled", "superseded"]


class ModelSubstituted(Fact):
    """Another model takes over from the event's attempt; the fact has the disclosure."""

    TYPE = "job.model.substituted"
    disclosure: Disclosure
    policy_version: int = 1


class DraftReady(Fact):
    """A faster model's answer is shown as a draft until the original's answer replaces it."""

    TYPE = "job.draft.ready"
    model: str


class DraftWithdrawn(Fact):
    """The draft is no longer shown."""

    TYPE = "job.draft.withdrawn"
    because: Literal["blocked", "replaced", "settled"]


class Interrupted(Fact):
    """A worker that shuts down hands the job over; this counts as no attempt."""

    TYPE = "job.interrupted"
    worker: str


class Rescued(Fact):
    """The lease of a dead worker expired and another worker took the job; this counts as no attempt."""

    TYPE = "job.rescued"
    worker: str
    generation: int


class CancelRequested(Fact):
    """A client asked to cancel a running job; the holder of the lease acts on it."""

    TYPE = "job.cancel.requested"
    by: str


class AccountFlagged(Fact):
    """The provider recommends verification for this account."""  # wire.md section 2.1

    TYPE = "job.account.flagged"


class Completed(Fact):
    """The answer of the event's attempt is the job's answer."""

    TYPE = "job.completed"
    served_model: str
    disclosure: Disclosure | None = None
    reason: str | None = None
    refused: bool = False


class Blocked(Fact):
    """The provider withheld the content; nothing is delivered and nothing more is tried."""  # promise P2

    TYPE = "job.blocked"
    block: Block
    error: JobError | None = None  # the same in plain words


class Failed(Fact):
    """No answer, and no more attempts."""

    TYPE = "job.failed"
    error: JobError


class Cancelled(Fact):
    """Cancelled on request."""

    TYPE = "job.cancelled"
    upstream_under_way: bool
    billed: bool  # what was running may be billed
    error: JobError | None = None
    by: str | None = None  # the key that cancelled a waiting job; for a running job the request's event has it
    bill: Literal["yes", "no", "unknown"] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Whether the provider bills what was running, as far as it said."""


class Expired(Fact):
    """A deadline passed first."""

    TYPE = "job.expired"
    deadline: Literal["queue_deadline", "run_deadline"]
    error: JobError


class ContentRemoved(Fact):
    """Prompt and output were removed: deleted on request, or not to be stored. The only fact after the end."""

    TYPE = "job.content.removed"
    because: Removal
    by: str


FACTS: Final[dict[str, type[Fact]]] = {fact.TYPE: fact for fact in Fact.__subclasses__()}
TERMINAL_FACTS: Final = (Completed, Blocked, Failed, Cancelled, Expired)


class Event(Stored):
    """One fact with its position; `seq` rises by one from 1 within a job."""

    seq: int
    type: str
    at: datetime
    job_id: str
    attempt: int | None = None
    fact: Fact

    def dump(self) -> dict[str, Any]:
        """Return the wire form as JSON values: seq, type, at, job_id, attempt, data."""
        body = self.model_dump(mode="json", exclude={"fact"})
        body["data"] = self.fact.model_dump(mode="json", exclude_none=isinstance(self.fact, AttemptUpdated))
        return body

    @classmethod
    def load(cls, body: dict[str, Any]) -> Event:
        """Return the event of a wire form; raise KeyError on an unknown type, ValidationError on bad data."""
        fact = FACTS[body["type"]].model_validate_json(json.dumps(body["data"]))
        return cls(**{k: v for k, v in body.items() if k != "data"}, fact=fact)


def event(seq: int, at: datetime, job_id: str, fact: Fact, attempt: int | None = None) -> Event:
    """Return `fact` as event number `seq` of the job."""
    return Event(seq=seq, type=fact.TYPE, at=at, job_id=job_id, attempt=attempt, fact=fact)


EventDraft = tuple[Fact, int | None]
"""A fact that is not in the record yet, and the number of its attempt, if it is about one."""
