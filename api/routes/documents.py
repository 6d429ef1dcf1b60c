"""GET /openapi.json and /docs, rendered for each prefix under which the API is reached, in a thread.

Making the document takes a third of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api.schema.docs_page import CONTENT_SECURITY_POLICY, render_page
from api.schema.documented_route import DocumentedRoute, Routes
from api.schema.openapi import document
from api.schema.views import dumps
from api.web.forwarded import prefix

_MAX_PAGES: Final = 16  # both pages under eight prefixes
_DESCRIPTION: Final = "An async job queue for long, safety-checked model requests."


class Documents:
    """The OpenAPI document of a list of routes, and the page made from it."""

    def __init__(self, described: list[DocumentedRoute]) -> None:
        self.described = described
        self._rendering = asyncio.Lock()  # however many requests come first, each page is rendered once
        self._rendered: dict[tuple[str, str], bytes] = {}  # by the name of the page and the prefix, the last used last
        self.routes = Routes()
        self.routes.get("/openapi.json")(self._get_openapi)
        self.routes.get("/docs")(self._get_page)

    @cached_property
    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        return document("Vigil", "1", _DESCRIPTION, self.described)

    def _render_json(self, path: str) -> bytes:
        return dumps({**self.openapi, "servers": [{"url": path or "/"}]})

    def _render_html(self, path: str) -> bytes:
        return render_page(self.openapi, path).encode()

    async def _page(self, name: str, render: Callable[[str], bytes], request: Request) -> bytes:
        """Return a page for the prefix of the request, rendered now if it isn't among those that were used last."""
        key = (name, prefix(request.scope))
        async with self._rendering:
            known = self._rendered.pop(key, None)
            body = self._rendered[key] = await asyncio.to_thread(render, key[1]) if known is None else known
            if len(self._rendered) > _MAX_PAGES:
                del self._rendered[next(iter(self._rendered))]
            return body

    async def _get_openapi(self, request: Request) -> Response:
        body = await self._page("openapi", self._render_json, request)
        return Response(body, media_type="application/json")

    async def _get_page(self, request: Request) -> Response:
        body = await self._page("docs", self._render_html, request)
        return Response(body, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY}, media_type="text/html")
