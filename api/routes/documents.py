"""GET /openapi.json and /docs, rendered for each prefix under which the API is reached."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api.schema.docs_page import CONTENT_SECURITY_POLICY, render_page
from api.schema.documented_route import DocumentedRoute, Routes
from api.schema.openapi import document
from api.schema.views import dumps
from api.web.forwarded import prefix

_MAX_PREFIXES: Final = 8
_DESCRIPTION: Final = "An async job queue for long, safety-checked model requests."


class Documents:
    """The OpenAPI document of a list of routes, and the page made from it."""

    def __init__(self, described: list[DocumentedRoute]) -> None:
        self._described = described
        self._json = lru_cache(_MAX_PREFIXES)(self._render_json)
        self._html = lru_cache(_MAX_PREFIXES)(self._render_html)
        self.routes = Routes()
        self.routes.get("/openapi.json")(self._get_openapi)
        self.routes.get("/docs")(self._get_page)

    @cached_property
    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        return document("Vigil", "1", _DESCRIPTION, self._described)

    def _render_json(self, path: str) -> bytes:
        return dumps({**self.openapi, "servers": [{"url": path or "/"}]})

    def _render_html(self, path: str) -> bytes:
        return render_page(self.openapi, path).encode()

    async def _get_openapi(self, request: Request) -> Response:
        return Response(self._json(prefix(request.scope)), media_type="application/json")

    async def _get_page(self, request: Request) -> Response:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return Response(self._html(prefix(request.scope)), headers=headers, media_type="text/html")
