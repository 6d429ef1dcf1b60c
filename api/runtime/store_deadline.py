"""How long one request waits for Redis in all, so that a hanging Redis gives a quick 503 and never a hang."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from starlette.requests import Request

from worker.jobs.errors import StoreUnavailable

T = TypeVar("T")
SECONDS: Final = 1.5
_LEAST: Final = 0.05
_KEY: Final = "vigil.patience"


async def ask(request: Request, question: Awaitable[T]) -> T:
    """The answer to a question to the store; StoreUnavailable once the request's patience is used up."""
    loop = asyncio.get_running_loop()
    began, left = loop.time(), request.scope.get(_KEY, SECONDS)
    try:
        return await within(left, question)
    finally:
        request.scope[_KEY] = max(_LEAST, left - (loop.time() - began))


async def within(seconds: float, question: Awaitable[T]) -> T:
    """The answer to a question to the store; StoreUnavailable after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await question
    except TimeoutError:
        raise StoreUnavailable("Redis took too long") from None
