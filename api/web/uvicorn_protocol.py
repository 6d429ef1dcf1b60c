"""HTTP/1.1 as our server takes it: uvicorn's protocol with deadlines and limits for what a client sends.

uvicorn waits without end for a request that has begun. Here a head and a body each have their time in all, however
steadily they trickle; connections that are idle between requests, long polls and event streams are not concerned.
Trailers are no headers, and a wish for another protocol is passed over: the request is read as if it had none.
What is refused here no app has seen: it is told as the other faults are, and the connection ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.web.middleware import bare
from api.web.problems import Problem
from worker.clock import Clock
from worker.settings import Settings

LONGEST_TARGET: Final = 8 * 1024
"""Bytes of a request's target."""
_MOST_CONNECTIONS: Final = 10_000
_PER_FIELD: Final = 4  # ": " and the end of the line

_VERSIONS: Final = frozenset({"1.0", "1.1"})

_HEAD, _BODY, _WHOLE = range(3)

_MALFORMED: Final = Problem(400, "malformed_request", "This is not HTTP/1.1 as RFC 9112 has it.")
_HOST: Final = Problem(400, "malformed_request", "A request has one Host, and not two.")
_CODING: Final = Problem(400, "malformed_request", "Send the body as it is or chunked, in no other transfer coding.")
_TARGET: Final = Problem(414, "target_too_long", f"The request's target is longer than {LONGEST_TARGET} bytes.")
_HEADERS: Final = Problem(431, "headers_too_large", "The request's header fields are too large.")
_SLOW: Final = Problem(408, "request_timeout", "The request did not arrive in time; send it again.")
_FULL: Final = Problem(503, "too_busy", "Too many connections at once; try again.", headers={"Retry-After": "1"})


class _Refused(Exception):
    """Ends the parsing; the answer is in `_fault`."""


class _Parser(HttpRequestParser):
    """Left to itself it takes the body of a request that has Upgrade for bytes of the other protocol, and us for its
    reader: they would be the next request. Such a head is read once more without the field (RFC 9110, 7.8).
    """

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it: it is passed over
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        while data:
            try:
                super().feed_data(data)
            except HttpParserUpgrade as found:
                data = self._protocol.plain_head() + data[found.args[0] :]
            else:
                return


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, settings: Settings, clock: Clock, **given: Any) -> None:
        super().__init__(**given)
        self._settings, self._clock = settings, clock
        self.parser = _Parser(self)
        self._stage, self._turn, self._size, self._bodies = _HEAD, 0, 0, 0
        self._fault = _MALFORMED
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            self._refuse(_FULL)
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        turn, bodies = self._turn, self._bodies
        super().data_received(data)
        if self.transport.is_closing():
            self._calm()
        elif turn != self._turn:
            self._watch()
        elif bodies != self._bodies:
            self._size = 0
        elif self._stage != _WHOLE:  # of a head, or of trailers and what else stands around a body
            self._size += len(data)
            if self._size > self._settings.max_header_bytes:
                self._refuse(_TARGET if self._stage == _HEAD and not self.headers else _HEADERS)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reach(_HEAD)
        self._size = 0

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Refused
            return
        size, hosts, codings = len(self.url), 0, list[bytes]()
        for name, value in self.headers:
            size += len(name) + len(value) + _PER_FIELD
            hosts += name == b"host"
            if name == b"transfer-encoding":
                codings.append(value.strip().lower())
        if len(self.url) > LONGEST_TARGET:
            self._fault = _TARGET
        elif size > self._settings.max_header_bytes:
            self._fault = _HEADERS
        elif hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            self._fault = _HOST
        elif self.parser.get_http_version() not in _VERSIONS:
            self._fault = _MALFORMED
        elif codings not in ([], [b"chunked"]):
            self._fault = _CODING
        else:
            super().on_headers_complete()
            self._reach(_BODY)
            self._size = 0
            self.headers = []  # trailers are put here, and nobody reads them
            return
        raise _Refused

    def on_body(self, body: bytes) -> None:
        self._bodies += 1
        super().on_body(body)

    def plain_head(self) -> bytes:
        """The head of the request that is being read, as if it had not asked for another protocol."""
        fields = b"".join(b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
        version = self.parser.get_http_version().encode()
        return b"%s %s HTTP/%s\r\n%s\r\n" % (self.parser.get_method(), self.url, version, fields)

    def on_message_complete(self) -> None:
        if self._stage == _HEAD:
            return  # the head is to be read once more
        super().on_message_complete()
        self._reach(_WHOLE)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """The parser gave up, by itself or because we did."""
        self._refuse(self._fault)

    def _reach(self, stage: int) -> None:
        self._stage, self._turn = stage, self._turn + 1

    def _watch(self) -> None:
        """The time for what is to come next: a head, a body, or nothing."""
        self._calm()
        if self._stage != _WHOLE:
            seconds = self._settings.header_seconds if self._stage == _HEAD else self._settings.body_seconds
            self._deadline = self.loop.call_later(seconds, self._late)

    def _calm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        if self.flow.read_paused or (self._stage == _HEAD and not self._idle()):
            self._watch()  # it is we who let the client wait
        else:
            self._refuse(_SLOW)

    def _idle(self) -> bool:
        """No request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _refuse(self, problem: Problem) -> None:
        """Says why, unless this or an earlier request is being answered; then the connection ends."""
        self._calm()
        answered = self.cycle.response_started or self.pipeline if self._stage == _BODY else not self._idle()
        if not answered and not self.transport.is_closing():
            self.transport.write(bare(problem, self._clock))
        self.transport.close()


def protocol(settings: Settings, clock: Clock) -> type[asyncio.Protocol]:
    """What uvicorn makes one of for each connection."""

    def made(**given: Any) -> Protocol:
        return Protocol(settings, clock, **given)

    return cast("type[asyncio.Protocol]", cast("Callable[..., Protocol]", made))
