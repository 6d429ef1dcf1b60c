"""HTTP/1.1 for uvicorn, with deadlines and limits for what a client sends.

uvicorn waits without limit for a request that has begun. Here the head and the body each have a deadline, however
steadily they arrive; connections that are idle between requests, long polls and event streams have none. A client that
takes too little of a response is disconnected. Trailers are not taken as headers, and a request to upgrade to another
protocol is ignored: the request is read as if it had none. A request that is refused here never reaches the app: it
gets a problem document like any other error, and the connection is closed.

What a client sends behind a request that is being served is read up to a limit, so that its end is noticed; uvicorn
would stop to read, and serve a client that has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.runtime.request_limits import is_of_app, is_waiting
from api.web.connections import ConnectionTable, connection_limit
from api.web.http10_cycle import Http10Cycle
from api.web.middleware import PROBES, raw_response
from api.web.problems import Problem
from api.web.receipt import attach_connection, unacknowledged
from api.web.request_starts import Origin, RequestStarts
from api.web.response_cycle import ResponseCycle
from worker.clock import Clock
from worker.settings import Settings

MAX_TARGET_BYTES: Final = 8 * 1024
_MAX_PIPELINED: Final = 32
"""Requests behind the one that is served; more are not read, or end the connection of one that waits."""
_MIN_TAKEN: Final = 64 * 1024
"""Bytes that a client must take of a response in `send_seconds`."""
_FIELD_OVERHEAD: Final = 4  # bytes: ": " and CRLF

_PROBE_TARGETS: Final = frozenset(path.encode() for path in PROBES)
_VERSIONS: Final = frozenset({"1.0", "1.1"})

_HEAD, _BODY, _COMPLETE = range(3)
"""What of a request has been received."""

_MALFORMED: Final = Problem(400, "malformed_request", "This is not a valid HTTP/1.1 request (RFC 9112).")
_HOST: Final = Problem(400, "malformed_request", "A request must have exactly one Host field.")
_CODING: Final = Problem(400, "malformed_request", "Send the body without a transfer coding, or chunked.")
_TARGET: Final = Problem(414, "target_too_long", f"The request's target is longer than {MAX_TARGET_BYTES} bytes.")
_HEADERS: Final = Problem(431, "headers_too_large", "The request's header fields are too large.")
_SLOW: Final = Problem(408, "request_timeout", "The request did not arrive in time; send it again.")
_PIPELINED: Final = Problem(400, "too_many_pipelined", "Too many requests are sent before their responses.")
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

    def __init__(
        self, settings: Settings, clock: Clock, table: ConnectionTable, starts: RequestStarts, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._settings, self._clock, self._table, self._starts = settings, clock, table, starts
        self.parser = _Parser(self)
        self._stage, self._transitions, self._size, self._body_chunks = _HEAD, 0, 0, 0
        self._problem = _MALFORMED
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._served: RequestResponseCycle | None = None
        self._probes_only = self._known = False
        self.failed = False
        self.left_unacknowledged: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._probes_only = not self._table.add(self)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed |= exc is not None
        self._stop_timer()
        self._stop_send_timer()
        self._table.remove(self)
        super().connection_lost(exc)  # notifies the newest request only
        served = self._served
        if served is not None and served is not self.cycle and not served.response_complete:
            served.disconnected = True
            served.message_event.set()
        self.pipeline.clear()

    def eof_received(self) -> None:
        """Note what of the responses the client has not received; it has ended the connection."""
        buffered = self.transport.get_write_buffer_size()
        self.left_unacknowledged = buffered + unacknowledged(self.transport.get_extra_info("socket"))

    def give_way(self) -> None:
        """Close the connection, which serves no request, for another one."""
        if self.cycle is None:
            self._refuse(_TOO_BUSY)
        else:  # the client would take a response for that to its next request
            self._stop_timer()
            self._close()

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
        fault = self._fault_of_head()
        if fault is not None:
            self._problem = fault
            raise _Refused
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # HTTP/1.0 has no interim responses: the client would take it for the last
        super().on_headers_complete()
        attach_connection(self.scope, self)
        old = self.parser.get_http_version() == "1.0"
        self.cycle.__class__ = Http10Cycle if old else ResponseCycle  # uvicorn makes the object; its task has not begun
        if self._probes_only:
            self.cycle.keep_alive = False
        if len(self.pipeline) < _MAX_PIPELINED:
            self.flow.resume_reading()
        self._enter(_BODY)
        self._size = 0
        self.headers = []  # trailers are appended here, and ignored

    def _fault_of_head(self) -> Problem | None:
        """Return why a request with this head is not served, or None."""
        if len(self.url) > MAX_TARGET_BYTES:
            return _TARGET
        fault = self._fault_of_fields()
        if fault is not None:
            return fault
        if self._probes_only and self.url.partition(b"?")[0] not in _PROBE_TARGETS:
            return _TOO_BUSY
        ahead = len(self.pipeline)
        if ahead >= _MAX_PIPELINED and (ahead >= 4 * _MAX_PIPELINED or self._waits()):
            return _PIPELINED
        return None

    def _fault_of_fields(self) -> Problem | None:
        """Return what is wrong with the version and the fields of a head, or None."""
        size, hosts, codings = len(self.url), 0, list[bytes]()
        for name, value in self.headers:
            size += len(name) + len(value) + _FIELD_OVERHEAD
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings.append(value.strip().lower())
        version = self.parser.get_http_version()
        if size > self._settings.max_header_bytes:
            return _HEADERS
        if hosts != 1 and (hosts or version != "1.0"):
            return _HOST
        if version not in _VERSIONS:
            return _MALFORMED
        return _CODING if codings and codings != [b"chunked"] else None

    def on_body(self, body: bytes) -> None:
        self._body_chunks += 1
        super().on_body(body)
        if self.pipeline and self.flow.read_paused and self._waits():
            raise _Refused  # the end of the client would not be noticed

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

    def on_response_complete(self) -> None:
        self._known = self._known or (self._served is not None and is_of_app(self._served.scope))
        self._served = None
        super().on_response_complete()
        if self.transport.is_closing():
            self._close()
        elif self._served is None:
            self._table.set_idle(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        self._table.set_busy(self)
        begin = partial(super()._start_asgi_task, cycle, _noticing_the_end(cycle, app))
        origin = Origin.KNOWN if self._known else Origin.NEW
        if cycle.scope["path"] in PROBES:
            origin = Origin.PROBE
        self._starts.begin(origin, self.client[0] if self.client else "", begin)

    @property
    def closes(self) -> bool:
        """Return whether the connection is closed behind the response that is being sent."""
        return self._served is None or not self._served.keep_alive

    @property
    def body_has_begun(self) -> bool:
        """Return whether some of the body of the served request has been received, or it has none."""
        served = self._served
        return served is not None and (not served.more_body or len(served.body) > 0)

    def _waits(self) -> bool:
        """Return whether the request that is served waits for something to happen, perhaps for long."""
        return self._served is not None and is_waiting(self._served.scope)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_send_timer()

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def _close(self) -> None:
        """Close the connection once the client has taken what was sent; if it takes too little of it, at once."""
        if not self.transport.is_closing():
            self.transport.close()
        if self.transport.get_write_buffer_size() and self._send_timer is None:
            self._start_send_timer()

    def _start_send_timer(self) -> None:
        self._stop_send_timer()
        self._unsent = self.transport.get_write_buffer_size()
        self._send_timer = self.loop.call_later(self._settings.send_seconds, self._on_send_deadline)

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _on_send_deadline(self) -> None:
        """Disconnect a client that has taken less than `_MIN_TAKEN` bytes; give it more time otherwise."""
        if self._unsent - self.transport.get_write_buffer_size() < _MIN_TAKEN:
            self.failed = True
            self.transport.abort()
        else:
            self._start_send_timer()

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
        self._close()


def _noticing_the_end(cycle: RequestResponseCycle, app: Any) -> Any:
    """Return the app, after which uvicorn knows that the client has left, if it has.

    A connection closes a turn of the loop before uvicorn is told. An app that saw it, and so has sent nothing, would be
    taken for broken: with a message on stderr, and a response of uvicorn's own to nobody.
    """

    async def run(*args: Any) -> None:
        try:
            await app(*args)
        except asyncio.CancelledError:  # the server stops and waits no longer
            cycle.transport.close()
        if not cycle.response_complete and cycle.transport.is_closing():
            cycle.disconnected = True

    return run


def protocol_factory(settings: Settings, clock: Clock) -> type[asyncio.Protocol]:
    """Return the factory that uvicorn calls for each connection of one server."""
    table, starts = ConnectionTable(connection_limit(settings.max_connections)), RequestStarts()

    def factory(**kwargs: Any) -> Protocol:
        return Protocol(settings, clock, table, starts, **kwargs)

    return cast("type[asyncio.Protocol]", cast("Callable[..., Protocol]", factory))
