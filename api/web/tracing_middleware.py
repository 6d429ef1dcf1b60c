"""The outermost layer: a submit is served in the trace it came with. Polls and probes keep no span."""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from api.web.params import header
from worker.telemetry.tracing import serving

_SENTRY_TRACE: Final = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}(-[01])?")
_BAGGAGE: Final = re.compile(r"sentry-[\x21-\x2b\x2d-\x7e]{1,500}")
_MOST_BAGGAGE: Final = 16
_SUBMITS: Final = frozenset({"/v1/jobs", "/v1/jobs/batch", "/v1/responses"})


class TracingMiddleware:
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


def trace_of(scope: Scope) -> dict[str, str]:
    """The submit's trace, so that the worker goes on with it: only what a tracer of ours would have written."""
    trace = "".join(header(scope, b"sentry-trace"))
    if _SENTRY_TRACE.fullmatch(trace) is None:
        return {}
    entries = [entry.strip() for entry in ",".join(header(scope, b"baggage")).split(",")[:64]]
    kept = [entry for entry in entries if _BAGGAGE.fullmatch(entry)][:_MOST_BAGGAGE]
    return {"sentry-trace": trace, **({"baggage": ",".join(kept)} if kept else {})}
