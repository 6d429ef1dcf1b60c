"""Requests as bytes over bare sockets, for clients that leave, do not read, or speak HTTP/1.0."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from api_server import Running
from waiting import LIMIT


def request(key: str, method: str, path: str, body: Any = None, version: str = "1.1", **fields: str) -> bytes:
    raw = json.dumps(body).encode() if body is not None else b""
    named = {"host": "x", "authorization": f"Bearer {key}", **{k.replace("_", "-"): v for k, v in fields.items()}}
    if body is not None:
        named |= {"content-type": "application/json", "content-length": str(len(raw))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode() + raw


class RawClient:
    """One connection. `buffer`: bytes that the system takes for a client that does not read."""

    def __init__(self, api: Running, buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.setblocking(False)
        self._address = (api.host, api.port)

    async def send(self, data: bytes) -> RawClient:
        loop = asyncio.get_running_loop()
        if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 and not _connected(self.socket):
            await loop.sock_connect(self.socket, self._address)
        await loop.sock_sendall(self.socket, data)
        return self

    async def read(self, size: int = 65_536) -> bytes:
        async with asyncio.timeout(LIMIT):
            try:
                return await asyncio.get_running_loop().sock_recv(self.socket, size)
            except ConnectionError:
                return b""

    async def until(self, text: bytes) -> bytes:
        """Everything up to this text and what came with it."""
        got = b""
        while text not in got:
            more = await self.read()
            assert more, f"the connection ended before {text!r}: {got[:500]!r}"
            got += more
        return got

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        got = b""
        while more := await self.read():
            got += more
        return got

    def close(self) -> None:
        self.socket.close()


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
