"""Defines the record of one job: its current state. Comments say when each field changes.

Content-free by construction: it has no prompt, output, metadata value or address, so the record may be kept, hashed
and shown to auditors. Only `fold.apply` makes a new record; everything is frozen.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import ClassVar, Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.frozen import Stored, StoredRecord
from worker.jobs.offers import Consent, Offer
from worker.jobs.spec import MEASURED, SILENCE, Policy, Priority
from worker.jobs.states import (
    DELIVERED,
    TERMINAL,
    CheckEnd,
    Evidence,
    Outcome,
    Purpose,
    RetryModelState,
    SafetyState,
    ScheduledReason,
    Status,
)

BlockCategory = Literal["cyber", "bio", "prompt", "misalignment", "image", "content_filter", "unknown"]
Carrier = Literal["http_400", "http_403", "error_event", "response_failed", "incomplete", "chat_chunk"]
DisclosureReason = Literal["safety_check_delay", "silence", "access_denied", "provider_reroute", "offer_accepted"]
Removal = Literal["deleted", "not_stored"]
DecidedBy = Literal["policy", "app", "provider"]
BlockScope = Literal["request", "end_user"]
_WAIT_REASONS = frozenset(ScheduledReason)

SCHEMA: Final = 2
"""The highest schema number of a record that this release can act on. A release writes into each record the lowest
number that its reader needs: 1, unless the record says something that must not be ignored."""
ACCOUNT_SCHEMA: Final = 2
"""Of a record with an attempt that goes through another account than the default one, which has its response."""


class Usage(Stored):
    """Tokens as the provider counted them; `estimated` if Vigil counted deltas instead."""

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    estimated: bool = False
    cache_write_tokens: int = Field(default=0, exclude_if=lambda value: not value)  # a part of the input
    cache_write_12h_tokens: int = Field(default=0, exclude_if=lambda value: not value)  # of those, kept for 12 hours


class CallTerms(Stored):
    """What an attempt's price and its highest cost depend on, as known when it begins. Has no content."""

    service_tier: str | None = None  # as requested
    window: str | None = None  # background_options.completion_window, as requested
    regional: bool = False  # the provider processes in one region, at a higher price
    input_tokens: int = 0  # about how many, estimated by size; used if the provider counts none
    max_output_tokens: int | None = None  # the limit that was sent
    max_cost: Decimal | None = None  # US dollars; set if the job has a cap


class AppliedPrice(Stored):
    """The row of prices that an attempt was charged by, and the rules that applied."""

    model: str
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    checked_on: date | None = None
    tier: str = "standard"
    factor: Decimal = Decimal(1)  # tier, completion window and region together
    window: str | None = None
    regional: bool = False
    long_context: bool = False
    notes: tuple[str, ...] = ()  # row_ended, before_first_row, tier_price_unknown, window_price_unknown


class ProviderError(Stored):
    """The provider's error without its message, which can quote the prompt."""

    code: str | None = None
    type: str | None = None
    http_status: int | None = None
    request_id: str | None = None


class JobError(Stored):
    """Why the job or attempt failed, in Vigil's words, and what to do next."""

    type: str
    code: str
    message: str
    advice: str
    provider: ProviderError | None = None


class Misalignment(Stored):
    """The parts of an error's `misalignment` object that hold no content: what kind it is, and what is reviewed."""

    error_type: str | None = None
    review_target: str | None = None  # opaque, kept only if it looks like an id


class InputTransformation(Stored):
    """One item of the input that the provider changed by itself; each field only if it looks like a code or an id."""

    action: str
    type: str | None = None
    reason: str | None = None
    id: str | None = None


class Block(Stored):
    """Content withheld by the provider, and what to do next.

    The scope `end_user` means that the provider limits this end user's access to the model, whatever the request is.
    """  # wire.md section 3

    category: BlockCategory
    code: str
    carrier: Carrier
    after_output: bool
    advice: str
    scope: BlockScope = Field(default="request", exclude_if=lambda value: value == "request")
    misalignment: Misalignment | None = Field(default=None, exclude_if=lambda value: value is None)


class Disclosure(Stored):
    """The statement that the served model is not the requested one."""  # promise P3

    requested_model: str
    served_model: str
    reason: DisclosureReason
    decided_by: DecidedBy
    capability: Literal["lower", "same", "higher", "unknown"]
    at: datetime
    message: str


class NextAction(Stored):
    """What the delay rule will do about a check that still runs at `at`, and what that time follows from."""

    action: Literal["offer", "switch", "race", "draft"]
    at: datetime
    because: Literal["after_seconds", "silence_seconds", "deadline"]


class Check(Stored):
    """One interval in which a safety check was signalled or suspected."""

    attempt: int
    evidence: Evidence  # rises from suspected to signalled, never falls
    started_at: datetime
    ended_at: datetime | None = None
    use_cases: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    retry_model: str | None = None
    retry_model_state: RetryModelState = RetryModelState.ABSENT
    repeats: int = 0  # the same notice again
    ended_by: CheckEnd | None = None
    next_action: NextAction | None = Field(default=None, exclude_if=lambda value: value is None)


class Attempt(Stored):
    """One call upstream with one model."""

    number: int
    model: str
    purpose: Purpose
    mode: str  # background | stream | chat
    client_request_id: str  # made by Vigil, sent as X-Client-Request-Id; the intent is recorded before the call
    started_at: datetime
    because: DisclosureReason | None = None  # why another model than the requested one was called
    proxied: bool = False  # an egress proxy is configured
    account: str = Field(default=DEFAULT_ACCOUNT, exclude_if=lambda value: value == DEFAULT_ACCOUNT)  # that is called
    terms: CallTerms | None = Field(default=None, exclude_if=lambda value: value is None)
    # from here on: set when the provider answers (job.attempt.updated), while the stream runs
    request_id: str | None = None
    response_id: str | None = None
    organization: str | None = None
    project: str | None = None
    http_status: int | None = None
    processing_ms: int | None = None
    first_event_at: datetime | None = None
    first_output_at: datetime | None = None
    sequence: int | None = None  # the resume cursor: the last sequence number that was safely kept
    resumed: int = 0
    # from here on: set once, when it ends (job.attempt.finished)
    finished_at: datetime | None = None
    outcome: Outcome | None = None
    served_model: str | None = None
    served_raw: dict[str, str] = {}  # header, created, terminal: as they came, for the audit
    flags: tuple[str, ...] = ()  # rerouted, model_conflict, tier_changed, account_flagged …
    service_tier: str | None = None
    rate_limits: dict[str, str] = {}
    error: JobError | None = None
    usage: Usage | None = None
    cost: Decimal | None = None  # US dollars; None when the model has no price
    price: AppliedPrice | None = Field(default=None, exclude_if=lambda value: value is None)
    cost_as_requested: Decimal | None = Field(default=None, exclude_if=lambda value: value is None)
    """What the same tokens cost at the prices of the requested model; only where another one served."""
    input_transformations: tuple[InputTransformation, ...] = Field(default=(), exclude_if=lambda value: not value)
    longest_silence_seconds: float | None = Field(default=None, exclude_if=lambda value: value is None)


class Hold(Stored):
    """A wait that an open circuit or a pause imposes."""

    scope: str
    reason: str
    since: datetime
    by: str | None = None  # the key that paused it; None for a circuit
    provider: ProviderError | None = Field(default=None, exclude_if=lambda value: value is None)  # what it said
    account: str | None = Field(default=None, exclude_if=lambda value: value is None)  # not the default one


class Job(StoredRecord):
    """The full record of a job. `version` is the `seq` of its last event."""

    KNOWN_SCHEMA: ClassVar[int] = SCHEMA
    schema_number: int = 1
    id: str
    version: int
    # set at submission, never changed
    app: str
    key_id: str
    requested_model: str
    policy: Policy
    priority: Priority
    safety_identifier: str | None
    input_digest: str | None  # HMAC of the request: proves what it was without revealing it
    store: bool = True
    not_before: datetime | None
    trace: dict[str, str] = {}  # sentry-trace, baggage: the submit's trace goes on in the worker
    webhook_events: tuple[str, ...] = ()  # events that its own webhook receives; the address is not in the record
    created_at: datetime
    optional: dict[str, JsonValue] = Field(default={}, exclude_if=lambda value: not value)
    """Fields that an older release may ignore: those of a newer one are kept unchanged and never read here."""
    # changed by events
    status: Status
    reason: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    next_attempt_at: datetime | None = None
    served_model: str | None = None
    disclosure: Disclosure | None = None
    refused: bool = False
    attempts: tuple[Attempt, ...] = ()
    checks: tuple[Check, ...] = ()
    block: Block | None = None
    account_flagged: bool = False
    offer: Offer | None = None
    accepted: str | None = None  # the model of an accepted offer, until the holder has acted on it
    consent: Consent | None = Field(default=None, exclude_if=lambda value: value is None)  # the last accepted offer
    hold: Hold | None = None
    draft_attempt: int | None = None
    draft_withdrawn: bool = False
    error: JobError | None = None
    cancel_requested_at: datetime | None = None
    billed_on_cancel: bool | None = None  # what was running may be billed
    winner: int | None = None  # the attempt whose answer is the job's
    # the only change after the end: prompt and output are removed
    content_removed: Removal | None = None
    content_removed_at: datetime | None = None

    @property
    def rerun_of(self) -> str | None:
        """Return the id of the job that this one runs again, or None."""
        found = self.optional.get("rerun_of")
        return found if isinstance(found, str) else None

    @property
    def unfiltered(self) -> bool:
        """Return whether an answer came although the provider's safety filter did not run."""
        return any("unfiltered" in a.flags for a in self.attempts if a.outcome in DELIVERED)

    @property
    def group(self) -> str | None:
        """Return the name of the group that its batch put it in, or None."""
        return found if isinstance(found := self.optional.get("group"), str) else None

    @property
    def silence_is_measured(self) -> bool:
        """Return whether silence is judged by what is usual for the model: the app gave no `silence_seconds`."""
        return self.optional.get(SILENCE) == MEASURED

    @property
    def rerun_root(self) -> str | None:
        """Return the id of the first job of a series of reruns that this one belongs to, or None."""
        found = self.optional.get("rerun_root")
        return found if isinstance(found, str) else None

    @property
    def settled(self) -> bool:
        """Return whether the status is terminal."""
        return self.status in TERMINAL

    @property
    def open_attempts(self) -> tuple[Attempt, ...]:
        """Return the attempts without an outcome: calls that may be under way upstream."""
        return tuple(a for a in self.attempts if a.outcome is None)

    @property
    def open_checks(self) -> tuple[Check, ...]:
        """Return the checks that have not ended."""
        return tuple(c for c in self.checks if c.ended_at is None)

    @property
    def safety_state(self) -> SafetyState:
        """Return the summary of the checks and the block."""
        if self.block is not None:
            return SafetyState.BLOCKED
        if self.open_checks:
            return SafetyState.CHECKING
        return SafetyState.CLEARED if self.checks else SafetyState.NONE

    @property
    def total_cost(self) -> Decimal | None:
        """Return the sum over all attempts that have a price; None if attempts have ended and none has one."""
        if not self.attempts:
            return Decimal(0)
        priced = [a.cost for a in self.attempts if a.cost is not None]
        ended = any(a.outcome is not None for a in self.attempts)
        return sum(priced, Decimal(0)) if priced or not ended else None

    @property
    def wasted_cost(self) -> Decimal | None:
        """Return the cost of attempts whose answer was not delivered."""
        if self.total_cost is None:
            return None
        return sum((a.cost for a in self.attempts if a.cost is not None and a.number != self.winner), Decimal(0))

    def attempt(self, number: int) -> Attempt:
        """Return attempt `number`, counted from 1."""
        return self.attempts[number - 1]

    @model_validator(mode="after")
    def _validate(self) -> Self:
        """Check the invariants that one record alone can show."""
        if self.settled and (self.open_attempts or self.open_checks or self.offer):
            raise ValueError("a settled job has nothing open")
        if self.content_removed and not self.settled:
            raise ValueError("a job keeps its content until it is settled")
        if self.settled != (self.finished_at is not None):
            raise ValueError("finished_at belongs to settled jobs and to them alone")
        if (self.status is Status.BLOCKED) != (self.block is not None):
            raise ValueError("blocked and block go together")
        if (self.status is Status.CHECKING) != bool(self.open_checks):
            raise ValueError("checking means that a check is open")
        if (self.status is Status.SCHEDULED) != (self.reason in _WAIT_REASONS and not self.settled):
            raise ValueError("scheduled jobs say why")
        self._validate_block()
        self._validate_served_model()
        return self

    def _validate_block(self) -> None:
        """Check promise P2 as far as one record shows it: nothing is delivered after a block."""
        blocked = any(a.outcome is Outcome.BLOCKED for a in self.attempts)
        if blocked and self.settled and self.status is not Status.BLOCKED:
            raise ValueError("a blocked attempt makes a blocked job: nothing is delivered after a block")
        if self.block is not None and self.draft_attempt is not None and not self.draft_withdrawn:
            raise ValueError("a block withdraws the draft")

    def _validate_served_model(self) -> None:
        """Check promise P3: the serving model is named, and a substitution has its disclosure."""
        completed = self.status is Status.COMPLETED
        if completed != (self.winner is not None) or completed != (self.served_model is not None):
            raise ValueError("a completed job, and no other, names the attempt that answered and the model that served")
        if self.winner is not None:
            if not 1 <= self.winner <= len(self.attempts) or self.attempt(self.winner).outcome not in DELIVERED:
                raise ValueError("the attempt that answered is one that delivered")
            answered = self.attempt(self.winner)
            if self.served_model != (answered.served_model or answered.model):
                raise ValueError("the served model is the one of the attempt that answered")
        if self.disclosure is not None:
            if self.policy.require_model:
                raise ValueError("require_model admits no substitution")
            if self.disclosure.requested_model != self.requested_model:
                raise ValueError("a disclosure names the model that was asked for")
        if self.served_model is not None:
            stated = self.disclosure.served_model if self.disclosure is not None else self.requested_model
            if stated != self.served_model or (self.disclosure is not None and stated == self.requested_model):
                raise ValueError("no served model without its disclosure, and no disclosure without a substitution")
