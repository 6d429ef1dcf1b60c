"""HTTP/1.1 for uvicorn, with deadlines and limits for what a client sends.

uvicorn waits without limit for a request that has begun. Here the head and the body each have a deadline, however
steadily they arrive; connections that are idle between requests, long polls and event streams have none. Trailers are
not taken as headers, and a request to upgrade to another protocol is ignored: the request is read as if it had none.
A request that is refused here never reaches the app: it gets a problem document like any other error, and the
connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.web.middleware import raw_response
from api.web.problems import Problem
from worker.clock import Clock
from worker.settings import Settings

MAX_TARGET_BYTES: Final = 8 * 1024
_MAX_CONNECTIONS: Final = 10_000
_FIELD_OVERHEAD: Final = 4  # bytes: ": " and CRLF

_VERSIONS: Final = frozenset({"1.0", "1.1"})

_HEAD, _BODY, _COMPLETE = range(3)
"""What of a request has been received."""

_MALFORMED: Final = Problem(400, "malformed_request", "This is not a valid HTTP/1.1 request (RFC 9112).")
_HOST: Final = Problem(400, "malformed_request", "A request must have exactly one Host field.")
_CODING: Final = Problem(400, "malformed_request", "Send the body without a transfer coding, or chunked.")
_TARGET: Final = Problem(414, "target_too_long", f"The request's target is longer than {MAX_TARGET_BYTES} bytes.")
_HEADERS: Final = Problem(431, "headers_too_large", "The request's header fields are too large.")
_SLOW: Final = Problem(408, "request_timeout", "The request did not arrive in time; send it again.")
_TOO_BUSY: Final = Problem(503, "too_busy", "Too many connections at once; try again.", headers={"Retry-After": "1"})


class _Refused(Exception):
    """Ends the parsing; the response is in `_problem`."""


class _Parser(HttpRequestParser):
    """A parser that ignores Upgrade (RFC 9110, 7.8).

    Without this, it would take the body of such a request for bytes of the other protocol, and we would read them as
    the next request. So the head is read again without the field.
    """

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does: such data is ignored
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        while data:
            try:
                super().feed_data(data)
            except HttpParserUpgrade as found:
                data = self._protocol.head_without_upgrade() + data[found.args[0] :]
            else:
                return


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, settings: Settings, clock: Clock, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings, self._clock = settings, clock
        self.parser = _Parser(self)
        self._stage, self._transitions, self._size, self._body_chunks = _HEAD, 0, 0, 0
        self._problem = _MALFORMED
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MAX_CONNECTIONS:
            self._refuse(_TOO_BUSY)
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        transitions, body_chunks = self._transitions, self._body_chunks
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_timer()
        elif transitions != self._transitions:
            self._start_timer()
        elif body_chunks != self._body_chunks:
            self._size = 0
        elif self._stage != _COMPLETE:  # of a head, or of trailers and chunk headers
            self._size += len(data)
            if self._size > self._settings.max_header_bytes:
                self._refuse(_TARGET if self._stage == _HEAD and not self.headers else _HEADERS)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter(_HEAD)
        self._size = 0

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Refused
            return
        size, hosts, codings = len(self.url), 0, list[bytes]()
        for name, value in self.headers:
            size += len(name) + len(value) + _FIELD_OVERHEAD
            hosts += name == b"host"
            if name == b"transfer-encoding":
                codings.append(value.strip().lower())
        if len(self.url) > MAX_TARGET_BYTES:
            self._problem = _TARGET
        elif size > self._settings.max_header_bytes:
            self._problem = _HEADERS
        elif hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            self._problem = _HOST
        elif self.parser.get_http_version() not in _VERSIONS:
            self._problem = _MALFORMED
        elif codings not in ([], [b"chunked"]):
            self._problem = _CODING
        else:
            super().on_headers_complete()
            self._enter(_BODY)
            self._size = 0
            self.headers = []  # trailers are appended here, and ignored
            return
        raise _Refused

    def on_body(self, body: bytes) -> None:
        self._body_chunks += 1
        super().on_body(body)

    def head_without_upgrade(self) -> bytes:
        """Return the head of the request that is being read, without its Upgrade field."""
        fields = b"".join(b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
        version = self.parser.get_http_version().encode()
        return b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, fields)

    def on_message_complete(self) -> None:
        if self._stage == _HEAD:
            return  # the head is read again
        super().on_message_complete()
        self._enter(_COMPLETE)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse the request: the parser failed, or we stopped it."""
        self._refuse(self._problem)

    def _enter(self, stage: int) -> None:
        self._stage, self._transitions = stage, self._transitions + 1

    def _start_timer(self) -> None:
        """Set the deadline of the head or the body that comes next; none while a complete request is served."""
        self._stop_timer()
        if self._stage != _COMPLETE:
            seconds = self._settings.header_seconds if self._stage == _HEAD else self._settings.body_seconds
            self._timer = self.loop.call_later(seconds, self._on_deadline)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_deadline(self) -> None:
        if self.flow.read_paused or (self._stage == _HEAD and not self._idle()):
            self._start_timer()  # the client waits for us
        else:
            self._refuse(_SLOW)

    def _idle(self) -> bool:
        """Return whether no request is being served."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _refuse(self, problem: Problem) -> None:
        """Close the connection; before, send the problem unless this or an earlier request is being served."""
        self._stop_timer()
        responding = self.cycle.response_started or self.pipeline if self._stage == _BODY else not self._idle()
        if not responding and not self.transport.is_closing():
            self.transport.write(raw_response(problem, self._clock))
        self.transport.close()


def protocol_factory(settings: Settings, clock: Clock) -> type[asyncio.Protocol]:
    """Return the factory that uvicorn calls for each connection."""

    def factory(**kwargs: Any) -> Protocol:
        return Protocol(settings, clock, **kwargs)

    return cast("type[asyncio.Protocol]", cast("Callable[..., Protocol]", factory))
