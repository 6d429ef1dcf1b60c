"""How long a request may wait for Redis in total, so that a hanging Redis causes a quick 503 and not a hang."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from starlette.requests import Request

from worker.jobs.errors import StoreUnavailable

T = TypeVar("T")
STORE_TIMEOUT_S: Final = 1.5
"""Of one request in total, and of each store operation outside of one."""
_MIN_TIMEOUT_S: Final = 0.05
_SCOPE_KEY: Final = "vigil.store_seconds_left"


async def with_deadline(request: Request, operation: Awaitable[T]) -> T:
    """Return the result of a store operation; raise StoreUnavailable once the request has waited STORE_TIMEOUT_S."""
    loop = asyncio.get_running_loop()
    began, left = loop.time(), request.scope.get(_SCOPE_KEY, STORE_TIMEOUT_S)
    try:
        return await with_timeout(left, operation)
    finally:
        request.scope[_SCOPE_KEY] = max(_MIN_TIMEOUT_S, left - (loop.time() - began))


async def with_timeout(seconds: float, operation: Awaitable[T]) -> T:
    """Return the result of a store operation; raise StoreUnavailable after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await operation
    except TimeoutError:
        raise StoreUnavailable("Redis took too long") from None
