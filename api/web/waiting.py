"""Waits for a client that may leave: what it waits for is cancelled as soon as its connection is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from api.runtime.request_limits import slot_of

T = TypeVar("T")


async def disconnected(receive: Receive) -> None:
    """Return once the client has left; what it still sends of a body is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; if the client leaves before, cancel it and raise ClientDisconnect."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def wait_for(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, and count the request as a wait until then.

    Raises LimitReached if the app has too many, ClientDisconnect if the client leaves.
    """
    try:
        async with slot_of(request.scope).waiting():
            return await until_disconnected(request, work)
    finally:
        work.close()  # does nothing unless the limit was reached
