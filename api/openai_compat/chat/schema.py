"""The bodies of the Chat Completions API for the OpenAPI document: OpenAI's, with the object `vigil` in them.

Only what Vigil itself sets or reads is described. The rest is OpenAI's, and passes as it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from api.openai_compat.schema import VigilRequest, VigilView
from api.schema.requests import EndUser, MetaValue
from api.schema.responses import OpenAIErrorView
from worker.jobs.spec import ModelName


class ChatMessageRequest(BaseModel):
    """A message of the conversation."""

    model_config = ConfigDict(extra="allow")
    role: str


class ChatCompletionRequest(BaseModel):
    """OpenAI's request. What the Responses API can carry is translated, what it can't is refused by name (400).

    With VIGIL_UPSTREAM=chat the fields of Chat Completions alone are passed as well. Fields that neither API has are
    passed to the provider unchanged.
    """

    model_config = ConfigDict(extra="allow")
    model: ModelName
    messages: Annotated[list[ChatMessageRequest], Field(min_length=1)]
    stream: bool | None = None
    stream_options: Any = None
    n: Literal[1] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    store: bool | None = None
    metadata: dict[str, MetaValue] | None = None
    safety_identifier: EndUser | None = None
    vigil: VigilRequest | None = None


@with_config(ConfigDict(extra="allow"))
class ChatMessageView(TypedDict):
    """The model's message."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None


@with_config(ConfigDict(extra="allow"))
class ChatChoiceView(TypedDict):
    """The answer, and why it ended."""

    index: int
    message: ChatMessageView
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    logprobs: dict[str, Any] | None


@with_config(ConfigDict(extra="allow"))
class ChatCompletionView(TypedDict):
    """OpenAI's ChatCompletion object, with Vigil's own in it. The members that are not listed here are OpenAI's."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoiceView]
    error: NotRequired[OpenAIErrorView]
    vigil: NotRequired[VigilView]
