"""Serves scripted bytes: the wire cases that a well-behaved double does not have."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_raw\r\n"
CHUNKED = SSE + b"transfer-encoding: chunked\r\n\r\n"
TO_THE_END = SSE + b"connection: close\r\n\r\n"
LAST = b"0\r\n\r\n"
SNAPSHOT: dict[str, Any] = {
    "id": "resp_raw01",
    "object": "response",
    "status": "in_progress",
    "model": "gpt-5.6-sol",
    "output": [],
    "error": None,
    "service_tier": "default",
}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hello.", "annotations": []}],
}
USAGE = {"input_tokens": 11, "output_tokens": 3, "total_tokens": 14}


def frame(data: Any) -> bytes:
    """Return one event in the provider's frame."""
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def chunk(payload: bytes) -> bytes:
    """Return one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def created(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {"type": "response.created", "sequence_number": number, "response": SNAPSHOT | changes}


def delta(number: int, piece: str = "Hel", **more: Any) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "sequence_number": number, "delta": piece, **more}


def completed(number: int, **changes: Any) -> dict[str, Any]:
    response = SNAPSHOT | {"status": "completed", "output": [MESSAGE], "usage": USAGE} | changes
    return {"type": "response.completed", "sequence_number": number, "response": response}


def as_json(status: int, data: Any, *headers: str) -> bytes:
    """Return a complete answer with a JSON body."""
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Request:
    """A request as received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """The server's end of one request."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self._reader, self._writer = reader, writer

    async def send(self, *parts: bytes) -> None:
        """Each part in a write of its own."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()

    async def events(self, *events: Any) -> None:
        await self.send(*(chunk(frame(event)) for event in events))

    def reset(self) -> None:
        """RST instead of FIN."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Until the client has hung up."""
        try:
            while await self._reader.read(1 << 16):
                pass
        except ConnectionError:
            pass


Script = Callable[[Connection], Awaitable[None]]


def plays(*parts: bytes) -> Script:
    """Send these bytes, then close."""

    async def script(connection: Connection) -> None:
        await connection.send(*parts)

    return script


class RawServer:
    """Each request gets the next script; the last one repeats. `requests` has what was received."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Request] = []
        self.port = 0

    @property
    def serving(self) -> bool:
        """A connection is open on this side."""
        return bool(self._tasks)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while getattr(self._server, "_active_count", 0):  # a failed handshake closes in its own time
            await asyncio.sleep(0)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while request := await _request(reader):
                self.requests.append(request)
                script = self._scripts[min(len(self.requests), len(self._scripts)) - 1]
                await script(Connection(request, reader, writer))
                if b"keep" not in request.headers.get("x-test", "").encode():
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)


async def _request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
