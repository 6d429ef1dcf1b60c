"""The bodies of the Responses API for the OpenAPI document: OpenAI's, with the object `vigil` in them.

Only what Vigil itself sets or reads is described. The rest is OpenAI's, and passes as it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Required

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from api.schema.requests import EndUser, Input, Instant, MetaValue, Webhook
from api.schema.responses import OpenAIErrorView
from worker.jobs.record import Disclosure, Hold, JobError
from worker.jobs.spec import ModelName, Policy, Priority
from worker.jobs.states import Status
from worker.jobs.view_schema import CostView, OfferView, SafetyView, UnreadablePart


class VigilRequest(BaseModel):
    """Vigil's own fields: those of `POST /v1/jobs` that OpenAI's request does not have."""

    model_config = ConfigDict(extra="forbid")
    policy: Policy = Policy()
    webhook: Webhook | None = None
    end_user: EndUser | None = None
    priority: Priority = "default"
    not_before: Instant | None = None
    metadata: dict[str, MetaValue] | None = None


class ConversationName(BaseModel):
    """A conversation by its id."""

    model_config = ConfigDict(extra="forbid")
    id: str


class OpenAIResponseRequest(BaseModel):
    """OpenAI's request. Fields that are not listed here are passed to the provider unchanged.

    `previous_response_id`, `conversation` and `item_reference` name what the same app made here: Vigil keeps it and
    sends it whole. Names of state that the provider keeps (files, vector stores, containers, stored prompts) are
    refused, and addresses in private networks.
    """

    model_config = ConfigDict(extra="allow")
    model: ModelName
    input: Input
    instructions: str | None = None
    background: bool | None = None
    stream: bool | None = None
    store: bool | None = None
    metadata: dict[str, MetaValue] | None = None
    safety_identifier: EndUser | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationName | None = None
    stream_options: Any = None
    vigil: VigilRequest | None = None


class OpenAIInputRequest(BaseModel):
    """What a response would be asked, to be counted or compacted. Other fields are as in `OpenAIResponseRequest`."""

    model_config = ConfigDict(extra="allow")
    model: ModelName | None = None
    input: Input | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationName | None = None


class OpenAIFailureView(TypedDict):
    """Why the response failed."""

    code: str
    message: str


class IncompleteDetailsView(TypedDict):
    """How the answer was cut short."""

    reason: str


class OpenAIUsageView(TypedDict):
    """Tokens, as OpenAI counts them."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: NotRequired[dict[str, int]]
    output_tokens_details: NotRequired[dict[str, int]]


class VigilView(TypedDict, total=False):
    """What Vigil knows of the response, in the terms of the native API."""

    job_id: Required[str]
    status: Required[Status]
    reason: str | None
    requested_model: str
    served_model: str | None
    disclosure: Disclosure | None
    safety: SafetyView
    offer: OfferView | None
    hold: Hold | None
    cost: CostView | None
    error: JobError | None
    next_attempt_at: Annotated[str | None, Field(json_schema_extra={"format": "date-time"})]
    unreadable: list[UnreadablePart]
    unfiltered: bool


@with_config(ConfigDict(extra="allow"))
class OpenAIResponseView(TypedDict):
    """OpenAI's Response object, with Vigil's own in it. The members that are not listed here are OpenAI's."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]
    error: OpenAIFailureView | None
    incomplete_details: IncompleteDetailsView | None
    model: str
    output: list[dict[str, Any]]
    usage: OpenAIUsageView | None
    metadata: dict[str, str]
    background: bool
    vigil: VigilView


class DeletedResponseView(TypedDict):
    """The response's content was deleted."""

    id: str
    object: Literal["response"]
    deleted: bool


class ItemListView(TypedDict):
    """A page of items; `first_id` and `last_id` are null in an empty one."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


@with_config(ConfigDict(extra="allow"))
class InputTokensCountView(TypedDict):
    """How many tokens the input has."""

    object: Literal["response.input_tokens"]
    input_tokens: int


@with_config(ConfigDict(extra="allow"))
class CompactedView(TypedDict):
    """Items that stand for the longer input, to be sent in its place."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[dict[str, Any]]
    usage: dict[str, Any]


class OpenAIErrorBodyView(TypedDict):
    """The body of every error of the OpenAI-compatible APIs."""

    error: OpenAIErrorView
