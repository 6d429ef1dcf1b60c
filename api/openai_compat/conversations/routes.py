"""OpenAI's Conversations API: an app's conversations and their items, which responses continue by `conversation`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.content_looks import record_item_reads
from api.jobs.provider_state import check_references
from api.openai_compat.conversations import openapi as docs
from api.openai_compat.conversations.schema import (
    ConversationItemsRequest,
    ConversationRequest,
    ConversationUpdate,
    ConversationView,
    DeletedConversationView,
)
from api.openai_compat.errors import OpenAIRoute
from api.openai_compat.item_pages import list_view, page_view
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.web.auth import authorize
from api.web.body import read_json, read_optional_json
from api.web.problems import Problem
from api.web.rate_limit_headers import quota_of
from api.web.responses import json_response
from api.web.validation import validate
from worker.jobs.conversation import Conversation
from worker.jobs.input_items import KeptItem, shown

routes = Routes("openai", OpenAIRoute)


@routes.post("/v1/conversations", docs.CREATE)
async def create(request: Request) -> Response:
    """Creates a conversation of up to 20 items. It is kept as long as a result, from its last change on."""
    key, context = await authorize(request, "submit"), context_of(request)
    sent = validate(ConversationRequest, await read_optional_json(request, context.settings.body_limit))
    items = sent.items or []
    await check_references(context, key.app, {}, items)
    creating = context.conversations.create(key.app, items, sent.metadata or {}, quota_of(context.settings, key))
    return json_response(_view(await with_deadline(request, creating)))


@routes.get(docs.CONVERSATION, docs.RETRIEVE)
async def retrieve(request: Request) -> Response:
    """Returns the conversation without its items."""
    key = await authorize(request, "read", "submit")
    return json_response(_view(await _find(request, key.app)))


@routes.post(docs.CONVERSATION, docs.UPDATE)
async def update(request: Request) -> Response:
    """Replaces the metadata."""
    key, context = await authorize(request, "submit"), context_of(request)
    sent = validate(ConversationUpdate, await read_json(request, context.settings.body_limit))
    changing = context.conversations.set_metadata(key.app, _id(request), sent.metadata or {})
    return json_response(_view(await with_deadline(request, changing)))


@routes.delete(docs.CONVERSATION, docs.DELETE)
async def delete(request: Request) -> Response:
    """Deletes the conversation and its items. Responses that were made in it are jobs of their own, and stay."""
    key, context = await authorize(request, "submit"), context_of(request)
    await with_deadline(request, context.conversations.remove(key.app, _id(request)))
    deleted: DeletedConversationView = {"id": _id(request), "object": "conversation.deleted", "deleted": True}
    return json_response(deleted)


@routes.post(f"{docs.CONVERSATION}/items", docs.CREATE_ITEMS)
async def create_items(request: Request) -> Response:
    """Adds up to 20 items at the end, and returns them with their ids."""
    key, context = await authorize(request, "submit"), context_of(request)
    sent = validate(ConversationItemsRequest, await read_json(request, context.settings.body_limit))
    await check_references(context, key.app, {}, sent.items)
    added = context.conversations.named(sent.items)
    changing = context.conversations.change(
        key.app, _id(request), lambda found: found.with_items(added), quota_of(context.settings, key)
    )
    await with_deadline(request, changing)
    return json_response(list_view(added))


@routes.get(f"{docs.CONVERSATION}/items", docs.LIST_ITEMS)
async def list_items(request: Request) -> Response:
    """Lists the items; those of a response join them once it has completed."""
    key = await authorize(request, "read", "submit")
    found = await _find(request, key.app)
    page = page_view(request, found.items)
    listed = {item["id"] for item in page["data"]}
    await record_item_reads(request, key, [entry for entry in found.entries if entry.kept.id in listed])
    return json_response(page)


@routes.get(docs.ITEM, docs.RETRIEVE_ITEM)
async def retrieve_item(request: Request) -> Response:
    """Returns one item."""
    key = await authorize(request, "read", "submit")
    found = await _find(request, key.app)
    one = _item(request, found)
    await record_item_reads(request, key, [entry for entry in found.entries if entry.kept is one])
    return json_response(shown(one))


@routes.delete(docs.ITEM, docs.DELETE_ITEM)
async def delete_item(request: Request) -> Response:
    """Deletes one item, and returns the conversation."""
    key, context = await authorize(request, "submit"), context_of(request)

    def without(found: Conversation) -> Conversation:
        return found.without_item(_item(request, found).id)

    changing = context.conversations.shrink(key.app, _id(request), without)
    return json_response(_view(await with_deadline(request, changing)))


async def _find(request: Request, app: str) -> Conversation:
    return await with_deadline(request, context_of(request).conversations.find(app, _id(request)))


def _item(request: Request, found: Conversation) -> KeptItem:
    named = str(request.path_params["item_id"])
    one = next((one for one in found.items if one.id == named), None)
    if one is None:
        raise Problem(404, "item_not_found", "The conversation has no such item.")
    return one


def _id(request: Request) -> str:
    return str(request.path_params["conversation_id"])


def _view(found: Conversation) -> ConversationView:
    return {
        "id": found.id,
        "object": "conversation",
        "created_at": found.created_ms // 1000,
        "metadata": found.metadata,
    }
