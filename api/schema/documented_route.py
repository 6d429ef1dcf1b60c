"""Routes with their part of the OpenAPI document.

A handler takes the request and returns the response. It is called directly: what Starlette puts around a handler for
its exception handlers and middleware costs a submit a twentieth, and RequestMiddleware does that work here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
Operation = dict[str, Any]
"""An operation object of OpenAPI, without what the route adds: its tag and the handler's docstring."""


class DocumentedRoute(Route):
    """A route of one method; `operation` is None for one that is not in the OpenAPI document."""

    def __init__(self, path: str, handler: Handler, method: str, operation: Operation | None, tag: str | None) -> None:
        super().__init__(path, handler, methods=[method])
        self.method, self.operation, self.tag, self._handler = method, operation, tag, handler

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or raise Starlette's 405."""
        if self.methods is None or scope["method"] not in self.methods:
            await super().handle(scope, receive, send)
            return
        response = await self.respond(Request(scope, receive, send))
        await response(scope, receive, send)

    async def respond(self, request: Request) -> Response:
        """Return the handler's response."""
        return await self._handler(request)


class Routes:
    """The routes of one module, collected by decorators."""

    def __init__(self, tag: str | None = None, route_class: type[DocumentedRoute] = DocumentedRoute) -> None:
        self._tag, self._route_class = tag, route_class
        self.all: Final[list[DocumentedRoute]] = []

    def get(self, path: str, operation: Operation | None = None) -> Callable[[Handler], Handler]:
        """Add a GET route."""
        return self._add(path, "GET", operation)

    def post(self, path: str, operation: Operation | None = None) -> Callable[[Handler], Handler]:
        """Add a POST route."""
        return self._add(path, "POST", operation)

    def patch(self, path: str, operation: Operation | None = None) -> Callable[[Handler], Handler]:
        """Add a PATCH route."""
        return self._add(path, "PATCH", operation)

    def delete(self, path: str, operation: Operation | None = None) -> Callable[[Handler], Handler]:
        """Add a DELETE route."""
        return self._add(path, "DELETE", operation)

    def _add(self, path: str, method: str, operation: Operation | None) -> Callable[[Handler], Handler]:
        def decorate(handler: Handler) -> Handler:
            self.all.append(self._route_class(path, handler, method, operation, self._tag))
            return handler

        return decorate
