"""The outermost ASGI middleware: serves a submit within the caller's trace. Other requests get no span."""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from api.web.header_fields import header_values
from worker.telemetry.tracing import CALLER, TRACEPARENT, serving

_SENTRY_TRACE: Final = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}(-[01])?")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_BAGGAGE: Final = re.compile(
    r"sentry-(?:trace_id|public_key|release|environment|sample_rate|sample_rand|sampled|org_id|replay_id)"
    r"=[\x21-\x2b\x2d-\x7e]{1,500}"
)
"""What Sentry samples by. Its other entries may name a user or an address."""
_MAX_BAGGAGE_ENTRIES: Final = 16
_SUBMIT_PATHS: Final = frozenset({"/v1/jobs", "/v1/jobs/batch", "/v1/responses", "/v1/chat/completions"})


class TracingMiddleware:
    """Opens a span around the requests that submit jobs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in _SUBMIT_PATHS:
            await self._app(scope, receive, send)
            return
        with serving(f"POST {scope['path']}", lambda: trace_of(scope)):
            await self._app(scope, receive, send)


def trace_of(scope: Scope) -> dict[str, str]:
    """Return the trace headers of the caller, for the worker to continue, in the format of Sentry's SDKs.

    A caller that sends only W3C's `traceparent` is marked as such.
    """
    trace = "".join(header_values(scope, b"sentry-trace"))
    if _SENTRY_TRACE.fullmatch(trace) is None:
        found = _TRACEPARENT.fullmatch("".join(header_values(scope, b"traceparent")).strip())
        if found is None:
            return {}
        return {"sentry-trace": f"{found[1]}-{int(found[2], 16) & 1}", CALLER: TRACEPARENT}
    entries = [entry.strip() for entry in ",".join(header_values(scope, b"baggage")).split(",")[:64]]
    kept = [entry for entry in entries if _BAGGAGE.fullmatch(entry)][:_MAX_BAGGAGE_ENTRIES]
    return {"sentry-trace": trace, **({"baggage": ",".join(kept)} if kept else {})}
