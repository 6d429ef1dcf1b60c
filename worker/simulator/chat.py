"""Handles /v1/chat/completions, streamed or not.

It must not depend on scenarios' insides; nothing of a chat completion is stored.
"""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from .answers import before_stream, ok, refuse
from .chat_script import chat_script
from .errors import shape
from .live_response import LiveResponse
from .request_body import read
from .responses import left, note
from .transport import CutError, EventStream, break_json
from .wire import Step, dumps
from .wire_shapes import reshape
from .world import WORLD, call_of, project_of


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    world, call = request.app[WORLD], call_of(request)
    ask = read(await request.read(), chat=True)
    note(request, ask)
    plan = world.plan(ask, call)
    refused = await before_stream(request, ask, plan)
    if refused is not None:
        return refused
    live = world.unkept(ask, plan)
    call.response_id = live.ids.response.replace("resp_", "chatcmpl-", 1)
    steps = chat_script(ask, plan, live.ids, project_of(request))
    steps = reshape(steps, plan.odd) if ask.stream else steps
    try:
        return await (_stream if ask.stream else _wait)(request, live, steps)
    finally:
        if not live.done and not ask.stream:
            world.ledger.aborted += 1
            call.ended = "aborted"


async def _stream(request: web.Request, live: LiveResponse, steps: Iterator[Step]) -> web.StreamResponse:
    world, call = request.app[WORLD], call_of(request)
    out = EventStream(request, world.headers(request, call, live.plan), world.fault(live, first=True))
    call.status = 200
    world.ledger.open_streams += 1
    try:
        await out.open()
        async for step in world.pace.steps(steps):
            live.absorb(step)
            if step.frame:
                await out.send(step.frame, terminal=step.terminal)
        live.finish()
        call.ended = "failed" if live.error is not None else "completed"
        await out.close()
    except (CutError, ConnectionError):
        pass
    finally:
        world.ledger.open_streams -= 1
        left(world.ledger, call, out, done=live.done)
    return out.response


async def _wait(request: web.Request, live: LiveResponse, steps: Iterator[Step]) -> web.StreamResponse:
    world, call = request.app[WORLD], call_of(request)
    async for step in world.pace.steps(steps):
        live.absorb(step)
    live.finish()
    fault = world.fault(live, first=True)
    if fault is not None:
        world.ledger.cut += 1
        call.ended = "cut"
        body = dumps(live.snapshot).encode()
        return await break_json(request, fault.how, body, world.headers(request, call, live.plan))
    if live.error is not None:
        error = shape(live.plan.code, model=live.ask.model, project=project_of(request))
        return refuse(request, error, live.plan)
    call.ended = "completed"
    return ok(request, live.snapshot, live.plan)
