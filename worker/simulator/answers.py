"""Makes the answers that aren't streams: JSON, the provider's error envelope, failures before the stream.

It must not depend on what a response is; handlers hand it bodies and plans.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web

from .browser_guard import refusal
from .directive import DirectiveError
from .error_forms import error_object, planned_error
from .errors import ErrorShape, envelope, shape, simple, wrapped
from .ledger import Call
from .plan import Plan
from .request_body import BadRequestError, ParsedRequest
from .transport import reset
from .wire import Json, dumps, retry_headers
from .wire_shapes import PAGE
from .world import CALL, WORLD, call_of, project_of, rated_of

log = logging.getLogger(__name__)

_LIMITED = frozenset({"rate_limit_exceeded", "slow_down"})
_KINDS = {
    "/v1/responses": "creates",
    "/v1/chat/completions": "chats",
    "/v1/models": "models",
    "/v1/responses/input_tokens": "counts",
    "/v1/responses/compact": "compactions",
}


def ok(request: web.Request, body: Json, plan: Plan | None = None) -> web.Response:
    """Return a 200 with the provider's headers."""
    headers = request.app[WORLD].headers(request, call_of(request), plan)
    return web.Response(text=dumps(body), content_type="application/json", headers=headers)


def refuse(request: web.Request, error: ErrorShape, plan: Plan | None = None, seconds: float = 0.0) -> web.Response:
    """Return an error in the provider's envelope, with the headers that belong to it."""
    call = call_of(request)
    call.ended = call.ended or "error"
    headers = request.app[WORLD].headers(request, call, plan, seconds=seconds)
    wait = plan.retry_after if plan is not None else 0.0
    headers |= retry_headers(wait, limited=error.code in _LIMITED)
    how = plan.wrap if plan is not None else ""
    form = plan.form if plan is not None else "plain"
    plain = envelope(error) if form == "plain" else {"error": error_object(error, form)}
    body = dumps(wrapped(error, how) if how in ("litellm", "prose") else plain)
    if how == "sse":
        return web.Response(
            status=error.status, text=f"data: {body}\n\n", content_type="text/event-stream", headers=headers
        )
    return web.Response(status=error.status, text=body, content_type="application/json", headers=headers)


def _error_object(request: web.Request, error: ErrorShape, plan: Plan) -> web.Response:
    """Return an error object under HTTP 200 in place of the stream, as vLLM sends it."""
    call = call_of(request)
    call.ended = call.ended or "error"
    body = {"object": "error", "message": error.message, "type": "BadRequestError", "param": None, "code": error.status}
    return web.Response(
        text=f"data: {dumps(body)}\n\ndata: [DONE]\n\n",
        content_type="text/event-stream",
        headers=request.app[WORLD].headers(request, call, plan),
    )


async def before_stream(request: web.Request, ask: ParsedRequest, plan: Plan) -> web.StreamResponse | None:
    """Return the answer of a call beyond the rates, or of a plan that fails before any stream; None if none does."""
    world = request.app[WORLD]
    wait = world.rates.take(rated_of(request), request.content_length or 0, ask.limit or 0)
    if wait > 0:
        world.ledger.limited += 1
        return refuse(
            request, shape("rate_limit_exceeded", model=ask.model, project=project_of(request)), Plan(retry_after=wait)
        )
    if plan.how == "drop":
        await reset(request)
        call_of(request).ended = "cut"
        world.ledger.cut += 1
        return web.Response()
    if ask.model in world.denied:
        return refuse(request, shape("model_not_found", model=ask.model, project=project_of(request)))
    if plan.carrier == "html":
        call_of(request).ended = "error"
        page = "<html><body>simulated edge refusal</body></html>"
        return web.Response(status=403, text=page, content_type="text/html", headers={"cf-ray": "9sim-AMS"})
    if plan.odd == "page":
        call_of(request).ended = "error"
        return web.Response(text=PAGE, content_type="text/html")
    status = plan.http_status
    if status is None:
        return None
    await world.pace.sleep(plan.hold)
    error = planned_error(plan, ask, project_of(request), status or None)
    if plan.wrap == "object":
        return _error_object(request, error, plan)
    return refuse(request, error, plan, plan.hold)


@web.middleware
async def guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Record the call, ask for a key, and turn every fault into the provider's envelope: never a traceback."""
    refused = refusal(request.method, request.headers, request.app[WORLD].allowed_hosts)
    if refused is not None:
        return problem(403, refused)
    if not request.path.startswith("/v1"):
        return await _control(request, handler)
    call = request[CALL] = _call(request)
    request.app[WORLD].ledger.begin(call)
    try:
        answer = await handler(request) if _has_key(request) else refuse(request, _no_key())
    except BadRequestError as error:
        answer = refuse(request, error.error)
    except DirectiveError as error:
        answer = refuse(request, simple(400, str(error), code="sim_directive_invalid", param="input"))
    except web.HTTPException as error:
        text = (
            f"Invalid URL ({request.method} {request.path})" if error.status == HTTPStatus.NOT_FOUND else error.reason
        )
        answer = refuse(request, simple(error.status, text))
    except ConnectionError:
        call.ended = call.ended or "aborted"
        raise
    except Exception:
        log.exception("simulator fault")
        answer = refuse(request, ErrorShape(500, "server_error", "simulator fault, see its log", "server_error"))
    call.status = answer.status
    return answer


async def _control(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return problem(error.status, error.reason)
    except ConnectionError:
        raise
    except Exception:
        log.exception("simulator fault")
        return problem(500, "simulator fault, see its log")


def problem(status: int, text: str) -> web.Response:
    """Return an error of the simulator's own pages."""
    return web.json_response(envelope(simple(status, text)), status=status)


def _call(request: web.Request) -> Call:
    head = request.headers
    return Call(
        method=request.method,
        path=request.path,
        request_id=f"req_{secrets.token_hex(16)}",
        client_request_id=head.get("X-Client-Request-Id"),
        retry_count=head.get("x-stainless-retry-count"),
        started_at="",
        kind=_kind(request),
    )


def _kind(request: web.Request) -> str:
    path = request.path.rstrip("/")
    if request.method == "POST":
        return "cancels" if path.endswith("/cancel") else _KINDS.get(path, "other")
    if path.startswith("/v1/responses/"):
        if request.method == "DELETE":
            return "deletes"
        return "resumes" if request.query.get("stream") == "true" else "polls"
    return "models" if path.startswith("/v1/models") else "other"


def _has_key(request: web.Request) -> bool:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(key.strip())


def _no_key() -> ErrorShape:
    return ErrorShape(
        401,
        "invalid_request_error",
        "You didn't provide an API key in an Authorization header using Bearer auth.",
        "invalid_api_key",
    )
