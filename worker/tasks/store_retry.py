"""Repeat a call while Redis is unavailable: the one loop for callers that have nothing better to do than wait.

Whoever runs in rounds needs none of this: `loop.run_every` and `loop.loop_pass` make the next round the retry.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from worker.jobs.errors import StoreUnavailable

T = TypeVar("T")
RETRY_INTERVAL_S: Final = 0.25


async def retry_store(
    call: Callable[[], Awaitable[T]],
    *,
    interval: float = RETRY_INTERVAL_S,
    give_up_after: float = math.inf,
    now: Callable[[], float] = time.monotonic,
) -> T:
    """Return what `call` returns, calling again every `interval` seconds while it raises StoreUnavailable.

    Raises the last StoreUnavailable once `give_up_after` seconds have passed.
    """
    until = now() + give_up_after
    while True:
        try:
            return await call()
        except StoreUnavailable:
            if now() > until:
                raise
            await asyncio.sleep(interval)
