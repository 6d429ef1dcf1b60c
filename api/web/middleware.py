"""The ASGI middleware of every request: it adds a request id and security headers to each response, limits how many
requests run at once, and turns every exception into a response. Must not know routes.
"""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.web.params import header_values
from api.web.problems import Problem, problem_of
from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.telemetry.events import emit, event_context

_VALID_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}")
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
_NO_CONTENT_CSP: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_MAX_REQUESTS: Final = 5_000
_TOO_BUSY: Final = Problem(503, "too_busy", "Too many requests at once; try again.", headers={"Retry-After": "1"})


class _HeadAnswered(Exception):
    """Ends a HEAD request after the head of the response: the body of its GET may be an endless stream."""


class RequestMiddleware:
    """Serves every request, around the router."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app, self._clock, self._in_flight = app, clock, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        headers = [*_SECURITY_HEADERS, (b"x-request-id", request_id)]
        started, bodiless = False, scope["method"] == "HEAD"
        if bodiless:
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                sent = message.get("headers", ())
                has_csp = _NO_CONTENT_CSP[0] in [name for name, _ in sent]  # /docs has its own
                message["headers"] = [*sent, *headers] if has_csp else [*sent, *headers, _NO_CONTENT_CSP]
                emit("api.answered", http_status=message["status"])
            await send(message)
            if bodiless and started:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise _HeadAnswered

        self._in_flight += 1
        with event_context(request_id=request_id.decode()):
            try:
                if self._in_flight > _MAX_REQUESTS:
                    await _TOO_BUSY.response()(scope, receive, send_with_headers)
                    return
                await self._app(scope, receive, send_with_headers)
            except (ClientDisconnect, _HeadAnswered):
                pass
            except Exception as error:  # noqa: BLE001  uvicorn must see none
                problem = problem_of(error, scope)
                if not started:
                    with suppress(_HeadAnswered):
                        await problem.response()(scope, receive, send_with_headers)
            finally:
                self._in_flight -= 1

    def _request_id(self, scope: Scope) -> bytes:
        """Return the caller's X-Request-Id if it is valid, else a new one."""
        sent = header_values(scope, b"x-request-id")
        if len(sent) == 1 and _VALID_REQUEST_ID.fullmatch(sent[0]):
            return sent[0].encode()
        return _new_id(self._clock)


def _new_id(clock: Clock) -> bytes:
    return ids.new_id("req", to_ms(clock.now()), clock.random_bytes(ids.RANDOM_BYTES)).encode()


def raw_response(problem: Problem, clock: Clock) -> bytes:
    """Return the bytes of a response that is sent without a request, before the connection is closed."""
    answer = problem.response()
    last = [_NO_CONTENT_CSP, (b"x-request-id", _new_id(clock)), (b"connection", b"close")]
    fields = b"".join(b"%s: %s\r\n" % field for field in [*answer.raw_headers, *_SECURITY_HEADERS, *last])
    head = b"HTTP/1.1 %d %s\r\n" % (problem.status, HTTPStatus(problem.status).phrase.encode())
    return head + fields + b"\r\n" + bytes(answer.body)
