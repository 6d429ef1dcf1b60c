"""The worker's own small port: `/healthz`, `/readyz`, `/metrics`, for machines that look after it. GET and HEAD only.

Alive says that the event loop turns, and nothing of Redis: a restart would not bring that back. Ready says that jobs
are claimed: not while draining, not while Redis takes no writes. One request per connection, so that nothing lingers.
Must not know: jobs, what a caller makes of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from worker.telemetry.events import emit
from worker.telemetry.metrics import CONTENT_TYPE

Ready = Callable[[], Awaitable[str]]
"""Gives why no jobs are claimed now; "" when they are."""

_SECONDS: Final = 5.0
_MOST_HEAD: Final = 8192
_PLAIN: Final = "text/plain; charset=utf-8"
_PHRASES: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

_Answer = tuple[int, bytes, str]


class HealthServer:
    """Answers while its block lasts."""

    def __init__(self, ready: Ready, metrics: Callable[[], bytes]) -> None:
        self._ready, self._metrics = ready, metrics
        self._open: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """The port that is listened on; 0 asks for a free one. OSError when it is taken."""
        server = await asyncio.start_server(self._serve, host, port, limit=_MOST_HEAD)
        found = int(server.sockets[0].getsockname()[1])
        emit("worker.listening", host=host, port=found)
        try:
            yield found
        finally:
            server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                method, _, rest = head.partition(b" ")
                status, body, kind = await self._answer(method, rest.partition(b" ")[0].partition(b"?")[0])
                lines = [
                    f"HTTP/1.1 {status} {_PHRASES[status]}",
                    f"Content-Type: {kind}",
                    f"Content-Length: {len(body)}",
                    "Cache-Control: no-store",
                    "Connection: close",
                ]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == b"HEAD" else body))
                await writer.drain()
        writer.close()

    async def _answer(self, method: bytes, path: bytes) -> _Answer:
        if method not in (b"GET", b"HEAD"):
            return 405, b"GET only\n", _PLAIN
        match path:
            case b"/healthz":
                return 200, b"ok\n", _PLAIN
            case b"/readyz":
                why = await self._ready()
                return (503, f"{why}\n".encode(), _PLAIN) if why else (200, b"ok\n", _PLAIN)
            case b"/metrics":
                return 200, self._metrics(), CONTENT_TYPE
            case _:
                return 404, b"/healthz /readyz /metrics\n", _PLAIN
