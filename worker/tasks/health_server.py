"""The worker's own HTTP port: `/healthz`, `/readyz` and `/metrics`, for orchestrators and scrapers. GET and HEAD only.

`/healthz` says that the event loop runs, and nothing about Redis: a restart would not bring that back. `/readyz` says
that jobs are claimed: not while draining, not while Redis takes no writes. One request per connection, so that no
connection stays open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from worker.telemetry.events import emit
from worker.telemetry.metrics import CONTENT_TYPE

Ready = Callable[[], Awaitable[str]]
"""Returns why no jobs are claimed now; "" if they are."""

_REQUEST_TIMEOUT_S: Final = 5.0
_MAX_HEAD_BYTES: Final = 8192
_PLAIN: Final = "text/plain; charset=utf-8"
_PHRASES: Final = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

_Response = tuple[int, bytes, str]


class HealthServer:
    """Answers as long as the block of `listening` lasts."""

    def __init__(self, ready: Ready, metrics: Callable[[], bytes], notes: Callable[[], str] = str) -> None:
        """`notes`: returns lines that `/readyz` adds although jobs are claimed."""
        self._ready, self._metrics, self._notes = ready, metrics, notes
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen inside the block and yield the port; 0 picks a free one. Raises OSError if the port is taken."""
        server = await asyncio.start_server(self._serve, host, port, limit=_MAX_HEAD_BYTES)
        bound = int(server.sockets[0].getsockname()[1])
        emit("worker.listening", host=host, port=bound)
        try:
            yield bound
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                method, _, rest = head.partition(b" ")
                status, body, kind = await self._respond(method, rest.partition(b" ")[0].partition(b"?")[0])
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

    async def _respond(self, method: bytes, path: bytes) -> _Response:
        if method not in (b"GET", b"HEAD"):
            return 405, b"GET only\n", _PLAIN
        match path:
            case b"/healthz":
                return 200, b"ok\n", _PLAIN
            case b"/readyz":
                reason = await self._ready()
                return (
                    (503, f"{reason}\n".encode(), _PLAIN) if reason else (200, b"ok\n" + self._notes().encode(), _PLAIN)
                )
            case b"/metrics":
                return 200, self._metrics(), CONTENT_TYPE
            case _:
                return 404, b"/healthz /readyz /metrics\n", _PLAIN
