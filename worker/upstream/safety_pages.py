"""Reads the provider's pages about a safety case or an alert, which changes nothing on the provider's side.

Paths and fields are the SDK's (types/safety); few keys may read them, so a refusal is an expected answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import quote

from worker.safety.stream import Closed, Rejected
from worker.upstream.client import Provider

TIMEOUT_S: Final = 8.0
"""The limit for one request."""

_PATHS: Final = {"case": "/safety/cases/", "alert": "/safety/alerts/"}
_TRANSIENT_STATUSES: Final = frozenset({408, 409, 425, 429})
_SERVER_FAULT: Final = 500

PageFailure = Literal["refused", "unavailable"]
"""`refused`: trying again is useless; `unavailable`: it may be readable later."""


async def safety_page(provider: Provider, kind: str, name: str, request_id: str) -> Mapping[str, Any] | PageFailure:
    """Return the page of a "case" or an "alert"; never raises. `request_id` is Vigil's own."""
    answer = await provider.get_page(_PATHS[kind] + quote(name, safe=""), request_id, TIMEOUT_S)
    if isinstance(answer, Rejected):
        again = answer.http_status in _TRANSIENT_STATUSES or answer.http_status >= _SERVER_FAULT
        return "unavailable" if again else "refused"
    if isinstance(answer, Closed):
        return "unavailable"
    return answer.body
