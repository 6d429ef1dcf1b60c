"""The routes of conversations in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from api.openai_compat.conversations.schema import (
    ConversationItemsRequest,
    ConversationRequest,
    ConversationUpdate,
    ConversationView,
    DeletedConversationView,
)
from api.openai_compat.openapi import PAGE, openai_operation
from api.openai_compat.schema import ItemListView
from api.schema.openapi import TEXT, json_body

CONVERSATION: Final = "/v1/conversations/{conversation_id}"
ITEM: Final = f"{CONVERSATION}/items/{{item_id}}"
_ID: Final = {
    "name": "conversation_id",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "`conv_…`",
}
_ITEM_ID: Final = {"name": "item_id", "in": "path", "required": True, "schema": TEXT, "description": "`msg_…`"}
_EXAMPLE: Final = {"type": "message", "role": "user", "content": "Explain tail latency."}
_LOCKED: Final = "Malformed; or a response is being made in the conversation (`conversation_locked`)."
_MISSING: Final = "There is no such conversation, or no such item in it."

CREATE: Final = openai_operation(
    "create_conversation",
    "Create a conversation",
    "The conversation.",
    ConversationView,
    body=json_body(ConversationRequest, {"metadata": {"ticket": "A-17"}, "items": [_EXAMPLE]}, required=False),
)
RETRIEVE: Final = openai_operation(
    "get_conversation",
    "Get a conversation",
    "The conversation, without its items.",
    ConversationView,
    scope="read or submit",
    failures={404: _MISSING},
    parameters=(_ID,),
)
UPDATE: Final = openai_operation(
    "update_conversation",
    "Replace a conversation's metadata",
    "The conversation.",
    ConversationView,
    failures={404: _MISSING},
    parameters=(_ID,),
    body=json_body(ConversationUpdate, {"metadata": {"ticket": "A-18"}}),
)
DELETE: Final = openai_operation(
    "delete_conversation",
    "Delete a conversation",
    "Deleted, with its items. Its responses are kept.",
    DeletedConversationView,
    failures={404: _MISSING, 409: "A legal hold keeps it."},
    parameters=(_ID,),
)
CREATE_ITEMS: Final = openai_operation(
    "create_conversation_items",
    "Add up to 20 items to a conversation",
    "The items that were added.",
    ItemListView,
    failures={400: _LOCKED, 404: _MISSING},
    parameters=(_ID,),
    body=json_body(ConversationItemsRequest, {"items": [_EXAMPLE]}),
)
LIST_ITEMS: Final = openai_operation(
    "list_conversation_items",
    "List the items of a conversation",
    "A page of the items, newest first unless `order` says otherwise.",
    ItemListView,
    scope="read or submit",
    failures={404: _MISSING},
    parameters=(_ID, *PAGE),
)
RETRIEVE_ITEM: Final = openai_operation(
    "get_conversation_item",
    "Get an item of a conversation",
    "The item.",
    dict[str, Any],
    scope="read or submit",
    failures={404: _MISSING},
    parameters=(_ID, _ITEM_ID),
)
DELETE_ITEM: Final = openai_operation(
    "delete_conversation_item",
    "Delete an item of a conversation",
    "The conversation.",
    ConversationView,
    failures={400: _LOCKED, 404: _MISSING, 409: "A legal hold keeps it."},
    parameters=(_ID, _ITEM_ID),
)
