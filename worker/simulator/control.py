"""Handles the simulator's own pages under /sim, and the model list.

It must not change what is on the wire of a response.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from .answers import ok, problem, refuse
from .browser_guard import is_json
from .directive import OPTIONS
from .errors import CODES, shape, simple
from .scenarios import SCENARIOS
from .webhooks import VARIANTS, WebhookError
from .wire import Json
from .world import CATALOG, SHUTDOWN_DATES, WORLD, call_of, project_of


async def models(request: web.Request) -> web.StreamResponse:
    """GET /v1/models: only what the key may use."""
    denied = request.app[WORLD].denied
    return ok(request, {"object": "list", "data": [_model(name) for name in CATALOG if name not in denied]})


async def model(request: web.Request) -> web.StreamResponse:
    """GET /v1/models/{id}: 404 for what isn't listed."""
    name = request.match_info["id"]
    call_of(request).model = name[:128]
    if name not in CATALOG or name in request.app[WORLD].denied:
        return refuse(request, shape("model_not_found", model=name[:128], project=project_of(request)))
    return ok(request, _model(name))


async def safety_page(request: web.Request) -> web.StreamResponse:
    """GET /v1/safety/cases/{id} and /v1/safety/alerts/{id}: the page behind a webhook."""
    name = request.match_info["id"][:128]
    page = request.app[WORLD].pages.get(name)
    if page is None or not request.path.startswith(f"/v1/safety/{page['object'].removeprefix('safety.')}s/"):
        return refuse(request, simple(404, f"No such page: '{name}'.", param="id"))
    return ok(request, page)


async def calls(request: web.Request) -> web.StreamResponse:
    """GET /sim/calls: the counts, the bill and the last calls."""
    return web.json_response(request.app[WORLD].ledger.as_json())


async def scenarios(_request: web.Request) -> web.StreamResponse:
    """GET /sim/scenarios: all scenarios with their options and what to expect."""
    return web.json_response([scenario.as_json() for scenario in SCENARIOS.values()])


async def options(_request: web.Request) -> web.StreamResponse:
    """GET /sim/options: what each option means, known codes and webhook variants."""
    options: Json = {name: option.meaning for name, option in OPTIONS.items()}
    return web.json_response({"options": options, "codes": list(CODES), "webhook_variants": list(VARIANTS)})


async def reset(request: web.Request) -> web.StreamResponse:
    """POST /sim/reset: counts and the tallies behind `times` start again; a body, which it needs not, must be JSON."""
    if request.body_exists:
        await _json(request)
    request.app[WORLD].reset()
    return web.json_response({"reset": True})


async def denied(request: web.Request) -> web.StreamResponse:
    """POST /sim/denied {models}: from now on these, and no others, are not granted."""
    body = await _json(request)
    models = body.get("models") if isinstance(body, dict) else None
    if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        return problem(400, "The body must be an object with `models`, a list of names.")
    request.app[WORLD].denied = frozenset(models)
    return web.json_response({"denied": sorted(request.app[WORLD].denied)})


async def speed(request: web.Request) -> web.StreamResponse:
    """POST /sim/speed {speed}: from now on every wait, also one under way, is divided by this."""
    body = await _json(request)
    wanted = body.get("speed") if isinstance(body, dict) else None
    if not isinstance(wanted, (int, float)) or isinstance(wanted, bool):
        return problem(400, "The body must be an object with `speed`, a number.")
    try:
        request.app[WORLD].pace.change(float(wanted))
    except (ValueError, OverflowError):
        return problem(400, "The speed must be a number above 0.")
    return web.json_response({"speed": request.app[WORLD].pace.speed})


async def rates(request: web.Request) -> web.StreamResponse:
    """POST /sim/rates {rpm, tpm, used?}: from now on so many calls and tokens a minute for each key, project and model.

    `used`: the share of them that others have used up now, from 0 to 1.
    """
    body = await _json(request)
    if not isinstance(body, dict):
        return problem(400, "The body must be an object with `rpm` and `tpm`, whole numbers from 0.")
    rpm, tpm, used = body.get("rpm", 0), body.get("tpm", 0), body.get("used", 0)
    if type(rpm) is not int or type(tpm) is not int or type(used) not in (int, float):
        return problem(400, "`rpm` and `tpm` are whole numbers from 0, `used` is a number from 0 to 1.")
    try:
        request.app[WORLD].rates.change(rpm, tpm, used)
    except ValueError as error:
        return problem(400, f"{error}.")
    return web.json_response({"rpm": rpm, "tpm": tpm, "used": used})


async def healthz(_request: web.Request) -> web.StreamResponse:
    """GET /sim/healthz."""
    return web.json_response({"ok": True})


async def webhook(request: web.Request) -> web.StreamResponse:
    """POST /sim/webhooks {type, data, variant?, url?, page?}: send any event, and report how it was received.

    `url` is on this machine, unless it is the one of --webhook-url.
    `page`: what GET /v1/safety/… answers for `data.id` from now on.
    """
    body = await _json(request)
    kind = body.get("type") if isinstance(body, dict) else None
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(kind, str) or not isinstance(data, dict):
        return problem(400, "The body must be an object with a `type` (text) and `data` (an object).")
    variant, url, page = body.get("variant", "plain"), body.get("url"), body.get("page")
    hooks = request.app[WORLD].webhooks
    try:
        target = hooks.check(str(variant), url if isinstance(url, str) else None)
    except WebhookError as error:
        return problem(400, str(error))
    if isinstance(page, dict) and isinstance(page.get("object"), str) and isinstance(data.get("id"), str):
        request.app[WORLD].pages.put(data["id"], page)
    return web.json_response({"deliveries": await hooks.emit(kind, data, str(variant), target)})


async def _json(request: web.Request) -> Any:
    """Return the value in the body; raise the 415 or 400 that answers for any other body."""
    if not is_json(request.headers.get("Content-Type", "")):
        raise web.HTTPUnsupportedMediaType(reason="The body must be JSON, with Content-Type: application/json.")
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(reason="The body must be JSON.") from None


def _model(name: str) -> Json:
    made = {"id": name, "object": "model", "created": 1_782_432_000, "owned_by": "openai-sim"}
    return {**made, "shutdown_date": SHUTDOWN_DATES.get(name)}
