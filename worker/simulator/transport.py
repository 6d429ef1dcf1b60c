"""Writes events as TCP chunks, and breaks connections in every way that a plan asks for (wire.md T14).

It must not depend on scenarios or the Responses API; it sees frames and a Fault.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import NoReturn

from aiohttp import web

STREAM_TYPE = "text/event-stream; charset=utf-8"
_BAD_FRAME = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_\n\n'
_BREATH = 0.02  # lets what was written reach the client before a reset overtakes it


class CutError(Exception):
    """The connection was broken on purpose; nothing more can be said on it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How and after how many events a connection breaks."""

    how: str
    after: int


class EventStream:
    """One answer made of events; each event is a chunk of its own on the socket."""

    def __init__(self, request: web.Request, headers: dict[str, str], fault: Fault | None) -> None:
        """Prepare the answer; nothing is written yet."""
        self._request, self._fault, self._sent = request, fault, 0
        self.broken = False  # the silence or the end on this connection is our doing
        self.response = web.StreamResponse(headers={"content-type": STREAM_TYPE, **headers})

    async def open(self) -> None:
        """Write the head of the answer."""
        await self.response.prepare(self._request)

    async def send(self, frame: bytes, *, terminal: bool = False) -> None:
        """Write one event, or break the connection if its time has come (CutError, or silence for ever)."""
        fault = self._fault
        if fault is not None:
            due = terminal if fault.how == "no_terminal" else self._sent >= fault.after
            if due and fault.how == "bad_json":
                frame, self._fault = _BAD_FRAME, None
            elif due:
                await self._break(fault.how, frame)
        self._sent += 1
        await self.response.write(frame)

    async def close(self) -> None:
        """End the answer cleanly."""
        await self.response.write_eof()

    async def _break(self, how: str, frame: bytes) -> NoReturn:
        self.broken = True
        match how:
            case "rst":
                await reset(self._request)
            case "fin":
                part = frame[: max(1, len(frame) // 2)]
                close_inside(self._request, f"{len(frame):x}\r\n".encode() + part)
            case "half":
                await self.response.write(frame[: frame.find(b"data: ") + 28])
                await self.response.write_eof()
            case "hang":
                await forever()
            case _:  # clean, no_terminal
                await self.response.write_eof()
        raise CutError(how)


async def reset(request: web.Request) -> None:
    """Break the connection with a TCP RST."""
    await asyncio.sleep(_BREATH)
    transport = request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def close_inside(request: web.Request, part: bytes) -> None:
    """Write raw bytes that promise more, then FIN."""
    transport = request.transport
    if transport is not None:
        transport.write(part)
        transport.close()


async def forever() -> NoReturn:
    """Say nothing until the client leaves (the handler is then cancelled)."""
    await asyncio.Event().wait()
    raise AssertionError


async def break_json(request: web.Request, how: str, body: bytes, headers: dict[str, str]) -> web.StreamResponse:
    """Break an answer that isn't a stream: reset, FIN or silence in the body, or a whole body of half its JSON."""
    half = body[: len(body) // 2]
    if how not in {"rst", "fin", "hang", "drop"}:
        return web.Response(body=half, headers={**headers, "content-type": "application/json"})
    response = web.StreamResponse(headers={**headers, "content-type": "application/json"})
    response.content_length = len(body)
    if how != "drop":
        await response.prepare(request)
        await response.write(half)
    match how:
        case "fin":
            close_inside(request, b"")
        case "hang":
            await forever()
        case _:
            await reset(request)
    return response
