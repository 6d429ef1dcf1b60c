"""How a response is written to its connection: a whole answer as one packet, everything else as uvicorn does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from api.web.header_fields import header_values
from api.web.response_cycle import ResponseCycle

_LOG = logging.getLogger("test")


class _Transport:
    """Records what is written, and whether it was closed."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _cycle(method: str = "GET", *, keep_alive: bool = True) -> tuple[ResponseCycle, _Transport, list[bool]]:
    transport, ended = _Transport(), list[bool]()
    cycle = ResponseCycle(
        scope={"type": "http", "method": method, "http_version": "1.1"},  # type: ignore[typeddict-item]
        transport=transport,  # type: ignore[arg-type]
        flow=FlowControl(transport),  # type: ignore[arg-type]
        logger=_LOG,
        access_logger=_LOG,
        access_log=False,
        default_headers=[(b"date", b"now")],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: ended.append(True),
    )
    return cycle, transport, ended


def _head(*fields: tuple[bytes, bytes], status: int = 202) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def _body(body: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def test_a_whole_answer_is_one_packet():
    cycle, transport, ended = _cycle()
    await cycle.send(_head((b"content-length", b"2"), (b"set-cookie", b"a"), (b"set-cookie", b"b")))
    assert cycle.response_started
    assert not ended
    await cycle.send(_body(b"ok"))
    head = b"HTTP/1.1 202 Accepted\r\ndate: now\r\ncontent-length: 2\r\nset-cookie: a\r\nset-cookie: b\r\n\r\n"
    assert transport.written == [head + b"ok"]
    assert ended == [True]
    assert cycle.response_complete
    assert not transport.closed


async def test_the_last_answer_of_a_connection_says_so_and_closes_it():
    cycle, transport, _ = _cycle(keep_alive=False)
    await cycle.send(_head((b"content-length", b"2")))
    await cycle.send(_body(b"ok"))
    assert transport.written[0].endswith(b"content-length: 2\r\nconnection: close\r\n\r\nok")
    assert transport.closed


async def test_the_head_of_a_stream_does_not_wait_for_its_body():
    cycle, transport, ended = _cycle()
    await cycle.send(_head((b"content-type", b"text/event-stream")))
    assert b"transfer-encoding: chunked" in transport.written[0]
    await cycle.send(_body(b"x", more=True))
    await cycle.send(_body(b""))
    assert transport.written[1:] == [b"1\r\nx\r\n", b"0\r\n\r\n"]
    assert ended == [True]


@pytest.mark.parametrize("parts", [[b"ab" * 50_000], [b"a", b"bc"]], ids=["long", "in parts"])
async def test_a_long_body_and_one_in_parts_come_whole(parts):
    cycle, transport, ended = _cycle()
    await cycle.send(_head((b"content-length", str(len(b"".join(parts))).encode())))
    for number, part in enumerate(parts, 1):
        await cycle.send(_body(part, more=number < len(parts)))
    assert b"".join(transport.written).partition(b"\r\n\r\n")[2] == b"".join(parts)
    assert ended == [True]


async def test_a_head_request_gets_the_length_and_no_body():
    cycle, transport, ended = _cycle("HEAD")
    await cycle.send(_head((b"content-length", b"2")))
    await cycle.send(_body(b""))
    assert b"".join(transport.written).endswith(b"content-length: 2\r\n\r\n")
    assert ended == [True]


@pytest.mark.parametrize("value", [b"a\r\nx-evil: 1", b"a\nb", b"a\rb", b"a\0b"])
async def test_a_line_break_in_a_field_is_refused(value):
    cycle, transport, _ = _cycle()
    with pytest.raises(RuntimeError, match="Invalid HTTP header value"):
        await cycle.send(_head((b"content-length", b"2"), (b"x-one", value)))
    assert not transport.written


@pytest.mark.parametrize("body", [b"a", b"abc"], ids=["shorter", "longer"])
async def test_a_body_of_another_length_is_an_error(body):
    cycle, _, _ = _cycle()
    await cycle.send(_head((b"content-length", b"2")))
    with pytest.raises(RuntimeError, match="than Content-Length"):
        await cycle.send(_body(body))


async def test_nothing_is_written_to_a_client_that_has_left():
    cycle, transport, ended = _cycle()
    cycle.disconnected = True
    await cycle.send(_head((b"content-length", b"2")))
    await cycle.send(_body(b"ok"))
    assert not transport.written
    assert not ended


def test_fields_that_are_sent_twice_are_all_found():
    scope = {"headers": [(b"a", b"1"), (b"b", b"\xe4"), (b"a", b"2")]}
    assert header_values(scope, b"a") == ["1", "2"]
    assert header_values(scope, b"b") == ["\xe4"]
    assert header_values(scope, b"c") == []
    assert header_values({"headers": [(b"a", b"1")]}, b"a") == ["1"]
