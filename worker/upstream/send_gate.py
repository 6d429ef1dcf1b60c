"""Everything of a request but its sending: a request may be built and its connection made before it may be sent.

The shell records the intent to call before the call; what costs time and no money happens meanwhile. A context
variable, because the SDK stands between who knows and who sends.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

SEND_GATE: Final[ContextVar[asyncio.Future[None] | None]] = ContextVar("go", default=None)
"""Requests of this context are not sent before it is done; None = at once."""

_MAX_FRESH_WAIT_S: Final = 1.0


async def wait_until_open() -> bool:
    """Returns when the request may be sent: True if that was soon, so that a connection made before is still fresh."""
    go = SEND_GATE.get()
    if go is None or go.done():
        return True
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.shield(go)
    return loop.time() - began < _MAX_FRESH_WAIT_S
