"""Handles POST /v1/responses/input_tokens and /v1/responses/compact: counts and shortens, and keeps nothing."""

from __future__ import annotations

import secrets
import time

from aiohttp import web

from .answers import before_stream, ok
from .request_body import read
from .responses import note
from .wire import usage
from .world import WORLD, call_of, project_of

_COMPACTED_TOKENS = 12


async def count(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses/input_tokens."""
    ask = read(await request.read(), chat=False)
    note(request, ask)
    refused = await before_stream(request, ask, request.app[WORLD].plan(ask, call_of(request)))
    return refused or ok(request, {"object": "response.input_tokens", "input_tokens": ask.input_tokens})


async def compact(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses/compact: every message of a user, and one item that stands for the rest."""
    world, call = request.app[WORLD], call_of(request)
    ask = read(await request.read(), chat=False)
    note(request, ask)
    plan = world.plan(ask, call)
    world.notify(ask, plan, call, project_of(request))
    refused = await before_stream(request, ask, plan)
    if refused is not None:
        return refused
    tail = secrets.token_hex(24)
    users = [
        {
            "id": f"msg_{secrets.token_hex(24)}",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": item["content"]
            if isinstance(item.get("content"), list)
            else [{"type": "input_text", "text": str(item.get("content", ""))}],
        }
        for item in ask.items
        if item.get("role") == "user"
    ]
    item = {"id": f"cmp_{tail}", "type": "compaction", "encrypted_content": f"sim:{tail}"}
    world.ledger.input_tokens += ask.input_tokens
    world.ledger.output_tokens += _COMPACTED_TOKENS
    body = {
        "id": f"resp_{tail}",
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*users, item],
        "usage": usage(ask.input_tokens, _COMPACTED_TOKENS),
    }
    return ok(request, body, plan)
