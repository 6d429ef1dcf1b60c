"""The request bodies as strict models: unknown fields, wrong types and out-of-range values are refused.

Must not know Redis, HTTP headers, nor which models exist.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SkipValidation,
    WithJsonSchema,
    model_validator,
)

from worker.jobs.events import FACTS, TERMINAL_FACTS
from worker.jobs.spec import ModelName, PayloadKind, Policy, Priority, Spec
from worker.jobs.states import Status
from worker.webhooks.guard import MAX_URL_LENGTH

OWNED_PARAMS: Final = frozenset(
    {"model", "input", "instructions", "stream", "background", "store", "safety_identifier", "user"}
)
"""Keys of `params` that Vigil sets itself; those of a caller are dropped (contract section 8), but for `user`: it is
the end user, where the request names none, and reaches the provider as the safety identifier only.
"""

_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_TERMINAL: Final = tuple(fact.TYPE for fact in TERMINAL_FACTS)


def instant(value: object) -> datetime:
    """Parse an RFC 3339 time with an offset."""
    if not isinstance(value, str) or _RFC3339.fullmatch(value) is None:
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-06-30T12:00:00Z")
    try:
        return datetime.fromisoformat(value.upper().replace(" ", "T")).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is not a valid time") from None


def _input(value: object) -> object:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return value
    raise ValueError("must be a non-empty string or a non-empty list of input items (objects)")


def no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain NUL")
    return value


def without_control(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain control characters")
    return value


def _event(value: str) -> str:
    if value not in FACTS:
        raise ValueError("is not an event that webhooks can send")
    return value


def _status(value: str) -> str:
    if value not in set(Status):
        raise ValueError(f"must be one of {', '.join(Status)}")
    return value


EndUser = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(without_control)]
Reason = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S"), AfterValidator(without_control)]
"""Why a person did something; it is kept in the audit trail."""
Input = Annotated[
    Any,
    PlainValidator(_input),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "object"}},
            ],
            "description": "Text, or a list of Responses input items.",
        }
    ),
]
Instant = Annotated[datetime, BeforeValidator(instant), WithJsonSchema({"type": "string", "format": "date-time"})]
MetaKey = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(no_nul)]
MetaValue = Annotated[str, Field(max_length=512)]
Url = Annotated[str, Field(min_length=1, json_schema_extra={"format": "uri", "maxLength": MAX_URL_LENGTH})]
"""Any text: `worker.webhooks.guard` alone parses URLs, and says what is wrong with one."""
NamedJob = Annotated[str, Field(min_length=1, max_length=40), AfterValidator(no_nul)]
"""A job's id, in any of its forms."""
ActionName = Literal["cancel", "rerun", "redeliver", "delete_content"]
StatusName = Annotated[str, AfterValidator(_status), WithJsonSchema({"type": "string", "enum": list(Status)})]
AnyText = Annotated[str, AfterValidator(no_nul)]
Searched = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(no_nul)]
EventName = Annotated[str, AfterValidator(_event), WithJsonSchema({"type": "string", "enum": sorted(FACTS)})]


class Webhook(Spec):
    """The webhook of one job: where and which events are sent."""

    url: Url
    events: Annotated[tuple[EventName, ...], Field(min_length=1, max_length=len(FACTS), strict=False)] = _TERMINAL
    payload: PayloadKind = "thin"


class Submit(Spec):
    """A request to submit a job."""

    model: ModelName
    input: Input
    instructions: str | None = None
    params: Annotated[dict[str, Any], Field(default_factory=dict, json_schema_extra={"default": {}})]
    """Passed to the provider, but for names of state that it keeps for its account, and private addresses."""
    end_user: EndUser | None = None
    policy: Policy = Policy()
    webhook: Webhook | None = None
    not_before: Instant | None = None
    priority: Priority = "default"
    metadata: Annotated[dict[MetaKey, MetaValue], Field(max_length=16)] = {}
    store: bool = True
    """False: input and output are removed once they were delivered; the record and its audit trail are kept."""

    def passed_params(self) -> dict[str, Any]:
        """Return the params that are passed to the provider."""
        return {name: value for name, value in self.params.items() if name not in OWNED_PARAMS}


GroupName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""The name of a group; it stands in the record and the audit trail as it is, so it must not be content."""


class JobFilter(Spec):
    """Which jobs of the app are meant: those that fit everything that is given."""

    status: Annotated[tuple[StatusName, ...], Field(max_length=len(Status), strict=False)] = ()
    """One of these."""
    model: AnyText | None = None
    """As requested."""
    served_model: Searched | None = None
    code: Searched | None = None
    """Of the job's error or block: Vigil's own, or the provider's."""
    end_user: AnyText | None = None
    metadata: Annotated[dict[MetaKey, MetaValue], Field(max_length=16)] = {}
    """All of these."""
    request_id: Searched | None = None
    """The provider's, of any attempt."""
    response_id: Searched | None = None
    """The provider's, of any attempt; or the job's own in the OpenAI-compatible API."""
    group: GroupName | None = None
    created_after: Instant | None = None
    """Created at this time or later."""
    created_before: Instant | None = None


class BatchItem(Submit):
    """A job of a batch."""

    idempotency_key: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")] | None = None


class BatchRequest(Spec):
    """Jobs to submit together. Each is accepted or refused by itself, unless the batch says all_or_nothing."""

    jobs: Annotated[list[Annotated[BatchItem | Any, SkipValidation]], Field(min_length=1, max_length=1_000)]
    group: GroupName | None = None
    """The group that the jobs belong to; without one, the batch makes one. Several batches may name the same."""
    all_or_nothing: bool = False
    """Accept all jobs or none, also by quota and rate limit; at most 100 jobs."""


class JobActionsRequest(Spec):
    """One action on many jobs: those of a list, or those that fit a filter."""

    action: ActionName
    ids: Annotated[tuple[NamedJob, ...], Field(min_length=1, max_length=1_000, strict=False)] | None = None
    filter: JobFilter | None = None
    """At least one condition. Without `status`, only jobs on which the action can have an effect."""
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    """Of a filter: how many jobs this call acts on at most."""
    cursor: Annotated[str, Field(max_length=200)] | None = None
    """Of a filter: the next_cursor of the call before."""
    dry_run: bool = False
    """Only count the jobs; nothing is changed."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("takes either ids or a filter")
        if self.filter == JobFilter():
            raise ValueError("takes a filter with at least one condition: an empty one would mean every job")
        if self.ids is not None and self.cursor is not None:
            raise ValueError("takes a cursor with a filter only")
        return self


class PauseTarget(Spec):
    """What is paused or resumed: everything, an app, a model, or an end user of the caller's app."""

    scope: Literal["all", "app", "model", "end_user"]
    name: EndUser | None = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.scope == "all") != (self.name is None):
            raise ValueError("all has no name, every other scope needs one")
        return self


class PauseRequest(PauseTarget):
    """A request to pause a target."""

    note: Annotated[str, Field(max_length=500), AfterValidator(without_control)] = ""
    until: Instant | None = None


class QuarantineRequest(Spec):
    """A request to put an end user of the caller's app in quarantine."""

    end_user: EndUser
    reason: Annotated[str, Field(max_length=500), AfterValidator(without_control)] = ""
    until: Instant | None = None
    shorten: bool = False
    """Let it end earlier than the quarantine that is in force."""


class LiftRequest(Spec):
    """Why a quarantine is lifted."""

    reason: Reason


class EmptyBody(Spec):
    """A body that may be omitted and may contain no field."""


class JobTokenRequest(Spec):
    """How long a token for the job is to last; at most, and by default, as long as the setting says."""

    seconds: Annotated[int, Field(ge=1, le=3600)] | None = None


class OfferAcceptance(Spec):
    """The offer to accept; without a model, the one that is open."""

    model: ModelName | None = None


class SupportPacketRequest(Spec):
    """The app's own description of a job for the provider's support: a few sentences."""

    description: Annotated[str, Field(min_length=1, max_length=2000, pattern=r"\S")]
