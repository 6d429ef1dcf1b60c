"""The bodies of the Conversations API: OpenAI's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from api.schema.requests import MetaKey, MetaValue

MAX_ITEMS_AT_ONCE = 20
Items = Annotated[list[dict[str, Any]], Field(max_length=MAX_ITEMS_AT_ONCE)]
Metadata = Annotated[dict[MetaKey, MetaValue], Field(max_length=16)]


class ConversationRequest(BaseModel):
    """A conversation to create."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
    items: Items | None = None
    metadata: Metadata | None = None


class ConversationUpdate(BaseModel):
    """The new metadata of a conversation, in place of the old."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
    metadata: Metadata | None


class ConversationItemsRequest(BaseModel):
    """Items to add to a conversation."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
    items: Annotated[Items, Field(min_length=1)]


class ConversationView(TypedDict):
    """A conversation, without its items."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class DeletedConversationView(TypedDict):
    """The conversation was deleted."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: bool
