"""The ASGI door: a request id and security headers on every answer, a bound on how many run at once, and no
exception that gets past it. Must not know routes.
"""

from __future__ import annotations

import re
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.web.params import header
from api.web.problems import Problem, problem_of
from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.telemetry.events import emit, event_context

_SANE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}")
_ALWAYS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
_NOTHING: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_AT_ONCE: Final = 5_000
_TOO_BUSY: Final = Problem(503, "too_busy", "Too many requests at once; try again.", headers={"Retry-After": "1"})


class _HeadAnswered(Exception):
    """A HEAD has its answer: what a GET would say before its body, be that an endless stream."""


class RequestMiddleware:
    """Stands before everything else of the app."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app, self._clock, self._inside = app, clock, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        headers = [*_ALWAYS, (b"x-request-id", request_id)]
        started, bodiless = False, scope["method"] == "HEAD"
        if bodiless:
            scope = {**scope, "method": "GET"}

        async def out(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                given = message.get("headers", ())
                own = _NOTHING[0] in [name for name, _ in given]  # a page for people has a policy of its own
                message["headers"] = [*given, *headers] if own else [*given, *headers, _NOTHING]
                emit("api.answered", http_status=message["status"])
            await send(message)
            if bodiless and started:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                raise _HeadAnswered

        self._inside += 1
        with event_context(request_id=request_id.decode()):
            try:
                if self._inside > _AT_ONCE:
                    await _TOO_BUSY.response()(scope, receive, out)
                    return
                await self._app(scope, receive, out)
            except (ClientDisconnect, _HeadAnswered):
                pass
            except Exception as error:  # noqa: BLE001  nothing of ours gets past the door
                problem = problem_of(error, scope)
                if not started:
                    with suppress(_HeadAnswered):
                        await problem.response()(scope, receive, out)
            finally:
                self._inside -= 1

    def _request_id(self, scope: Scope) -> bytes:
        """The caller's, if it is one and sane; else a new one."""
        sent = header(scope, b"x-request-id")
        if len(sent) == 1 and _SANE.fullmatch(sent[0]):
            return sent[0].encode()
        return _new_id(self._clock)


def _new_id(clock: Clock) -> bytes:
    return ids.new_id("req", to_ms(clock.now()), clock.dice(ids.DICE_BYTES)).encode()


def bare(problem: Problem, clock: Clock) -> bytes:
    """The answer to what never became a request: the connection ends with it."""
    answer = problem.response()
    last = [_NOTHING, (b"x-request-id", _new_id(clock)), (b"connection", b"close")]
    fields = b"".join(b"%s: %s\r\n" % field for field in [*answer.raw_headers, *_ALWAYS, *last])
    head = b"HTTP/1.1 %d %s\r\n" % (problem.status, HTTPStatus(problem.status).phrase.encode())
    return head + fields + b"\r\n" + bytes(answer.body)
