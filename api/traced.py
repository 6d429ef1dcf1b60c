"""The outermost layer: a submit is served in the trace it came with. Polls and probes keep no span."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from api.submit import trace_of
from worker.telemetry.tracing import serving

_SUBMITS: Final = frozenset({"/v1/jobs", "/v1/jobs/batch", "/v1/responses"})


class Traced:
    """Stands before the door."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _SUBMITS:
            await self._app(scope, receive, send)
            return
        with serving(f"POST {scope['path']}", lambda: trace_of(scope)):
            await self._app(scope, receive, send)
