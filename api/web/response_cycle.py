"""One request and its response on a connection. The head of a whole answer is sent together with its body.

uvicorn writes the head on its own: a second call into the kernel, and a second packet, which cost a submit a tenth of
its time. What has no length, or is not sent as one piece, is left to it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_MAX_JOINED: Final = 64 * 1024
"""Bytes of a body that is copied behind its head; a longer one is written on its own."""
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LEFT_TO_UVICORN: Final = frozenset({b"connection", b"transfer-encoding"})
_BODILESS: Final = frozenset({204, 304})


class ResponseCycle(RequestResponseCycle):
    """A request of HTTP/1.1 and its response."""

    _head: bytes | None = None
    """Of a response whose body comes next."""

    async def send(self, message: Any) -> None:
        """Send a part of the response; the head of a whole answer is sent with its body, which follows at once."""
        head, self._head = self._head, None
        if head is None:
            if not self.response_started and message["type"] == "http.response.start" and self._hold(message):
                return
            await super().send(message)
            return
        body = message.get("body", b"")
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message.get("more_body") or len(body) != self.expected_content_length or len(body) > _MAX_JOINED:
            self.transport.write(head)
            await super().send(message)
            return
        self.transport.write(head + body)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _hold(self, message: Any) -> bool:
        """Keep the head for its body and return True, or return False if it is not that of a whole answer."""
        headers = message.get("headers", ())
        fields = dict(headers)
        length = fields.get(b"content-length", b"")
        if not length.isdigit() or not _LEFT_TO_UVICORN.isdisjoint(fields) or message["status"] in _BODILESS:
            return False
        if self.scope["method"] == "HEAD":
            return False
        lines = [STATUS_LINE[message["status"]]]
        lines += [b"%b: %b\r\n" % field for field in (*self.default_headers, *headers)]
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        head, breaks = b"".join(lines), len(lines) + (not self.keep_alive)
        if head.count(b"\n") != breaks or head.count(b"\r") != breaks or _CONTROL.search(head):
            return False  # a line break within a field: uvicorn refuses it
        self.response_started, self.waiting_for_100_continue = True, False
        self.chunked_encoding, self.expected_content_length, self._head = False, int(length), head
        return True
