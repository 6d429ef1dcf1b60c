"""Lets the pages of some origins call the API from a browser (CORS), and answers their preflights.

Requests carry their key or token themselves: the API takes no cookies, so `Access-Control-Allow-Credentials` is never
sent, and the headers that a page may send are those that it asks for.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.web.header_fields import header_values

_METHODS: Final = b"GET, HEAD, POST, PATCH, DELETE"
_MAX_AGE_S: Final = b"7200"  # browsers keep a preflight no longer
_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_EXPOSED: Final = b", ".join(
    (
        *(b"ETag", b"Location", b"Retry-After", b"RateLimit", b"RateLimit-Policy", b"X-Request-Id"),
        *(b"WWW-Authenticate", b"Idempotent-Replayed", b"Preference-Applied"),
        *(b"X-Vigil-Group", b"X-Vigil-Job", b"X-Vigil-Served-Model", b"X-Vigil-Substituted"),
    )
)


class CorsMiddleware:
    """Adds the headers of CORS for the allowed origins; without any it is not needed."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app, self._origins = app, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = header_values(scope, b"origin")
        origin = sent[0] if len(sent) == 1 and sent[0] in self._origins else None
        if origin is not None and scope["method"] == "OPTIONS" and _is_preflight(scope):
            await _answer_preflight(scope, send, origin.encode())
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(b"vary", b"Origin")]
                if origin is not None:
                    added += [
                        (b"access-control-allow-origin", origin.encode()),
                        (b"access-control-expose-headers", _EXPOSED),
                    ]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _is_preflight(scope: Scope) -> bool:
    return bool(header_values(scope, b"access-control-request-method"))


async def _answer_preflight(scope: Scope, send: Send, origin: bytes) -> None:
    wanted = ", ".join(header_values(scope, b"access-control-request-headers"))
    headers = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _MAX_AGE_S),
        (b"vary", b"Origin, Access-Control-Request-Headers"),
    ]
    if _NAMES.fullmatch(wanted):
        headers.append((b"access-control-allow-headers", wanted.encode()))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
