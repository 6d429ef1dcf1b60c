"""A response that is written piece by piece, and whose source is closed as soon as the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.runtime.request_limits import RequestSlot, slot_of
from api.web.receipt import close_connection
from api.web.waiting import disconnected


class CutShort(Exception):
    """A source has no more chunks, although its client needs more: it must not take what it has for the whole."""


class ChunkedResponse(Response):
    """Sends chunks until there are no more or the client has disconnected.

    After `CutShort` of the source the connection is closed without the end of the response, which clients notice.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        media_type: str = "text/event-stream",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(None, 200, {**(headers or {}), "x-accel-buffering": "no"}, media_type)
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        writing = asyncio.create_task(self._write(send, slot_of(scope)))
        leaving = asyncio.create_task(disconnected(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            writing.cancel()
            results = await asyncio.gather(writing, leaving, return_exceptions=True)
        if isinstance(results[0], CutShort):
            close_connection(scope)
        elif isinstance(results[0], Exception):
            raise results[0]

    async def _write(self, send: Send, slot: RequestSlot) -> None:
        try:
            async for chunk in self._chunks:
                slot.rest()  # what comes now comes when it happens
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            await self._chunks.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
