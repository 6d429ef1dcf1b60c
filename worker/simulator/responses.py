"""Handles /v1/responses: create (four modes), poll, resume, cancel, delete.

They must not depend on scenarios' insides: a plan, its steps and a fault are all they see.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web

from .answers import before_stream, ok, refuse
from .error_forms import planned_error
from .errors import ErrorShape, shape, simple
from .ledger import Call, Ledger
from .live_response import LiveResponse
from .request_body import ParsedRequest, digest_of, read
from .transport import CutError, EventStream, break_json
from .wire import Step, dumps
from .world import WORLD, World, call_of, project_of

_REFUSED_LOOKS = {"limited": "rate_limit_exceeded", "overloaded": "server_is_overloaded"}
_DIGITS = 18  # of a sequence number that is still believed


def note(request: web.Request, ask: ParsedRequest) -> None:
    """Record the body's fields in the ledger's entry."""
    call = call_of(request)
    safety = ask.body.get("safety_identifier")
    call.model, call.stream, call.background = ask.model, ask.stream, ask.background
    call.safety_identifier = safety if isinstance(safety, str) else None
    call.input_sha256 = ask.sha256
    source = ask.body.get("input")
    if isinstance(source, list):
        call.items, call.items_sha256 = len(source), digest_of(source)


def left(ledger: Ledger, call: Call, out: EventStream, *, done: bool) -> None:
    """Record why a stream ended early: broken by the simulator, or left by the client while generating."""
    if out.broken:
        ledger.cut += 1
        call.ended = "cut"
    elif not done:
        ledger.aborted += 1
    call.ended = call.ended or "aborted"


async def create(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses."""
    world, call = request.app[WORLD], call_of(request)
    ask = read(await request.read(), chat=False)
    note(request, ask)
    plan = world.plan(ask, call)
    world.notify(ask, plan, call, project_of(request))
    refused = await before_stream(request, ask, plan)
    if refused is not None:
        return refused
    live, steps = world.create(ask, plan, project_of(request))
    call.response_id = live.ids.response
    if not ask.background:
        return await (_foreground if ask.stream else _wait)(request, world, live, steps)
    world.run(live, steps)
    if ask.stream:
        return await _follow(request, world, live, after=-1, first=True)
    return ok(request, live.snapshot, plan)


async def _foreground(
    request: web.Request, world: World, live: LiveResponse, steps: Iterator[Step]
) -> web.StreamResponse:
    """Generate while the client listens; it stops when the client leaves."""
    call, ledger = call_of(request), world.ledger
    out = EventStream(request, world.headers(request, call, live.plan), world.fault(live, first=True))
    call.status = 200
    ledger.open_streams += 1
    try:
        await out.open()
        async for step in world.pace.steps(steps):
            live.absorb(step)
            if step.frame:
                await out.send(step.frame, terminal=step.terminal)
        live.finish()
        call.ended = live.status
        await out.close()
    except (CutError, ConnectionError):
        pass
    finally:
        ledger.open_streams -= 1
        if not (live.done and live.ask.store):
            world.lives.pop(live.ids.response, None)
        left(world.ledger, call, out, done=live.done)
    return out.response


async def _wait(request: web.Request, world: World, live: LiveResponse, steps: Iterator[Step]) -> web.StreamResponse:
    """Generate, then answer in one piece."""
    call = call_of(request)
    try:
        async for step in world.pace.steps(steps):
            live.absorb(step)
    except asyncio.CancelledError:
        world.ledger.aborted += 1
        call.ended = "aborted"
        world.lives.pop(live.ids.response, None)
        raise
    live.finish()
    if not live.ask.store:
        world.lives.pop(live.ids.response, None)
    fault = world.fault(live, first=True)
    if fault is not None:
        world.ledger.cut += 1
        call.ended = "cut"
        return await break_json(
            request, fault.how, dumps(live.snapshot).encode(), world.headers(request, call, live.plan)
        )
    if live.error is not None:
        return refuse(request, planned_error(live.plan, live.ask, project_of(request)), live.plan)
    call.ended = live.status
    return ok(request, live.snapshot, live.plan)


async def _follow(
    request: web.Request, world: World, live: LiveResponse, *, after: int, first: bool
) -> web.StreamResponse:
    """Send a background response's events from after + 1 on; the response does not depend on its readers."""
    call = call_of(request)
    out = EventStream(request, world.headers(request, call, live.plan), world.fault(live, first=first))
    call.status = 200
    world.ledger.open_streams += 1
    try:
        await out.open()
        async for frame, terminal in live.follow(after):
            await out.send(frame, terminal=terminal)
        call.ended = live.status
        await out.close()
    except (CutError, ConnectionError):
        pass
    finally:
        world.ledger.open_streams -= 1
        left(world.ledger, call, out, done=True)
    return out.response


async def retrieve(request: web.Request) -> web.StreamResponse:
    """GET /v1/responses/{id}: poll, or resume with stream=true&starting_after=N."""
    world = request.app[WORLD]
    live = _find(request)
    if live is None:
        return refuse(request, _gone(request))
    looks = world.looks(live)
    if looks == "late":
        return refuse(request, _gone(request))
    if looks in _REFUSED_LOOKS:
        code = _REFUSED_LOOKS[looks]
        return refuse(request, shape(code, model=live.ask.model, project=project_of(request)), live.plan)
    if request.query.get("stream") != "true" or looks == "snapshot":
        return ok(request, live.snapshot, live.plan)
    call_of(request).stream = True
    after = _number(request.query.get("starting_after", "-1"))
    if after is None:
        return refuse(request, simple(400, "starting_after must be an integer.", param="starting_after"))
    if not live.ask.background:
        return refuse(request, _gone(request))
    if not live.ask.stream:
        return refuse(request, simple(400, "simulated: this response was not created with stream=true"))
    if live.plan.resume == "refused" or not world.resumable(live):
        return refuse(request, simple(400, "simulated: no longer streamable, more than 5 minutes old"))
    return await _follow(request, world, live, after=after, first=False)


async def cancel(request: web.Request) -> web.StreamResponse:
    """POST /v1/responses/{id}/cancel: background only; idempotent."""
    live = _find(request)
    if live is None:
        return refuse(request, _gone(request))
    if not live.ask.background:
        return refuse(request, simple(400, "Cannot cancel a synchronous response."))
    if live.cancel():
        live.task = request.app[WORLD].spawn(request.app[WORLD].tell(live))
    return ok(request, live.snapshot, live.plan)


async def delete(request: web.Request) -> web.StreamResponse:
    """DELETE /v1/responses/{id}."""
    live = _find(request)
    if live is None:
        return refuse(request, _gone(request))
    if live.ask.background:
        live.cancel()
    del request.app[WORLD].lives[live.ids.response]
    return ok(request, {"id": live.ids.response, "object": "response", "deleted": True})


def _find(request: web.Request) -> LiveResponse | None:
    live = request.app[WORLD].lives.get(request.match_info["id"])
    call = call_of(request)
    call.response_id = request.match_info["id"][:128]
    if live is None or (live.plan.resume == "lost" and call.method == "GET"):
        return None
    call.model, call.background, call.scenario = live.ask.model, live.ask.background, live.plan.scenario
    return live


def _gone(request: web.Request) -> ErrorShape:
    return simple(404, f"Response with id '{request.match_info['id'][:128]}' not found.", param="id")


def _number(text: str) -> int | None:
    try:
        return int(text) if len(text) <= _DIGITS else None
    except ValueError:
        return None
