"""Delays the sending of a request that is already built and connected.

The worker records the intent to call before the call; meanwhile the request is built and the connection is made. A
context variable, because the SDK is between the caller and the transport.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

SEND_GATE: Final[ContextVar[asyncio.Future[None] | None]] = ContextVar("go", default=None)
"""Requests of this context are not sent before it is done; None: at once."""

_MAX_FRESH_WAIT_S: Final = 1.0


async def wait_until_open() -> bool:
    """Wait until the request may be sent; return True if that was soon, so that the connection is still fresh."""
    go = SEND_GATE.get()
    if go is None or go.done():
        return True
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.shield(go)
    return loop.time() - began < _MAX_FRESH_WAIT_S
