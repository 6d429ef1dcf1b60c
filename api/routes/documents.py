"""GET /openapi.json and /docs, each rendered at its first request, in a thread: that takes a third of a second."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api.schema.docs_page import CONTENT_SECURITY_POLICY, render_page
from api.schema.documented_route import DocumentedRoute, Routes
from api.schema.openapi import document
from api.schema.views import dumps

_DESCRIPTION: Final = "An async job queue for long, safety-checked model requests."


class Documents:
    """The OpenAPI document of a list of routes, and the page made from it."""

    def __init__(self, described: list[DocumentedRoute]) -> None:
        self.described = described
        self._rendering = asyncio.Lock()  # however many requests come first, it is rendered once
        self.routes = Routes()
        self.routes.get("/openapi.json")(self._get_openapi)
        self.routes.get("/docs")(self._get_page)

    @cached_property
    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        return document("Vigil", "1", _DESCRIPTION, self.described)

    @cached_property
    def _json(self) -> bytes:
        return dumps(self.openapi)

    @cached_property
    def _html(self) -> bytes:
        return render_page(self.openapi).encode()

    async def _rendered(self, name: str) -> bytes:
        async with self._rendering:
            body: bytes = getattr(self, name) if name in vars(self) else await asyncio.to_thread(getattr, self, name)
            return body

    async def _get_openapi(self, _: Request) -> Response:
        return Response(await self._rendered("_json"), media_type="application/json")

    async def _get_page(self, _: Request) -> Response:
        page = await self._rendered("_html")
        return Response(page, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY}, media_type="text/html")
