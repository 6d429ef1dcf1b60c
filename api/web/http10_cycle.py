"""Responses to HTTP/1.0, which has no chunked coding: a body without a length ends where the connection does."""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_BODILESS: Final = frozenset({204, 304})


class Http10Cycle(RequestResponseCycle):
    """A request of HTTP/1.0 and its response. uvicorn would send a body without a length in chunks."""

    _ends_with_connection = False

    async def send(self, message: Any) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            bodiless = self.scope["method"] == "HEAD" or message["status"] in _BODILESS
            if b"content-length" not in names and not bodiless:
                self._ends_with_connection, self.chunked_encoding = True, False
        elif self._ends_with_connection:
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
            return
        await super().send(message)

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.transport.write(body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            self.transport.close()
            self.on_response()
