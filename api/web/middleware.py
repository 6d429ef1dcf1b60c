"""The ASGI middleware of every request: it adds a request id and security headers to each response, counts what is
open, turns every exception into a response, and records which answers were received. Must not know routes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from operator import itemgetter
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.runtime.context import AppContext, context_in
from api.runtime.request_limits import RequestSlot, set_slot
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from api.web.callers import OpenCall, call_of
from api.web.header_fields import header_values
from api.web.large_body import release_body
from api.web.problems import Problem, problem_of
from api.web.receipt import Receipt, noted_answers
from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import StoreUnavailable
from worker.telemetry.events import emit, event_context

PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are always served: a process that is busy must not look dead."""

_VALID_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,127}")
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]
_WITH_ANSWER: Final = frozenset({200, 202})
_NO_CONTENT_CSP: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_NAME: Final = itemgetter(0)
_ADDED: Final = frozenset({*map(_NAME, _SECURITY_HEADERS), _NO_CONTENT_CSP[0], b"x-request-id"})
_TOO_BUSY: Final = Problem(503, "too_busy", "Too many requests at once; try again.", headers={"Retry-After": "1"})


class _HeadAnswered(Exception):
    """Ends a HEAD request after the head of the response: the body of its GET may be an endless stream."""


class _Sender:
    """Sends the response to one request, with the headers that every response has."""

    def __init__(self, scope: Scope, send: Send, request_id: bytes, clock: Clock) -> None:
        self._scope, self._send, self._clock = scope, send, clock
        self._headers = [*_SECURITY_HEADERS, (b"x-request-id", request_id), _NO_CONTENT_CSP]
        self._bodiless = scope["method"] == "HEAD"
        self.status = 0
        self.receipt: Receipt | None = None
        """Of a whole response that shows answers, or for which an SDK waits."""

    async def __call__(self, message: Message) -> None:
        """Send a part of the response."""
        call = call_of(self._scope)
        if call is not None:
            call.note(message, self._clock.monotonic())
        if message["type"] == "http.response.start":
            self.status = message["status"]
            sent, added = message.get("headers", ()), self._headers
            if not _ADDED.isdisjoint(map(_NAME, sent)):  # /docs and the console have their own policies
                own = {name for name, _ in sent}
                added = [header for header in added if header[0] not in own]
            message["headers"] = [*sent, *added]
            emit("api.answered", http_status=self.status)
        elif not message.get("more_body") and (self._shows_answers() or (call is not None and call.whole)):
            self.receipt = Receipt(self._scope)
        await self._send(message)
        if self._bodiless:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            raise _HeadAnswered

    def _shows_answers(self) -> bool:
        return self.status in _WITH_ANSWER and bool(noted_answers(self._scope))


class RequestMiddleware:
    """Serves every request, around the router."""

    def __init__(self, app: ASGIApp, context: AppContext, respond: Callable[[Problem, Scope], Response]) -> None:
        """`respond`: returns the response to what failed outside a route, in the format of the path's API."""
        self._app, self._clock, self._context, self._respond = app, context.clock, context, respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        sender = _Sender(scope, send, request_id, self._clock)
        with event_context(request_id=request_id.decode()):
            await self._serve(scope, receive, sender)
            call = call_of(scope)
            if sender.receipt is None and call is None:
                return
            arrived = sender.receipt is not None and await sender.receipt.arrived(self._context.settings.send_seconds)
            if call is not None:
                await self._end_call(scope, call, arrived=arrived)
            if arrived and sender.status in _WITH_ANSWER:
                await self._record_read(scope, noted_answers(scope))

    async def _serve(self, scope: Scope, receive: Receive, sender: _Sender) -> None:
        """Send the response of the app, or that to its exception."""
        slot = RequestSlot(self._context.request_limits)
        set_slot(scope, slot)
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        try:
            if scope["path"] not in PROBES and not slot.start():
                await self._respond(_TOO_BUSY, scope)(scope, receive, sender)
            else:
                await self._app(scope, receive, sender)
        except (ClientDisconnect, _HeadAnswered):
            pass
        except Exception as error:  # noqa: BLE001  uvicorn must see none
            problem = problem_of(error, scope)
            if not sender.status:
                with suppress(_HeadAnswered):
                    await self._respond(problem, scope)(scope, receive, sender)
        finally:
            release_body(scope)
            slot.leave()

    async def _record_read(self, scope: Scope, answers: list[str]) -> None:
        """Record that the app has the answers of these jobs: they are erased soon after."""
        if answers:
            with suppress(StoreUnavailable):  # then they are erased later, as if nobody had read them
                await with_timeout(STORE_TIMEOUT_S, context_in(scope, self._context).job_access.mark_read(answers))

    async def _end_call(self, scope: Scope, call: OpenCall, *, arrived: bool) -> None:
        """Record whether the client of a create has its answer: if not, its SDK's next try is to join the job."""
        callers = context_in(scope, self._context).callers
        try:
            if call.job_id:
                answered = (arrived and call.whole) or call.streamed(self._clock.monotonic())
                await callers.end_surely(call.app, call.caller, call.job_id, answered=answered)
        finally:
            callers.release()

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
