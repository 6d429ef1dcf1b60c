"""Waits for tests: for conditions rather than times, and durations measured so that a busy machine fails no test.

A limit here is no promise: on an idle machine each wait takes milliseconds, and a fault still fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from worker.clock import Clock

T = TypeVar("T")
LIMIT = 90.0
"""Seconds until a wait has failed; below the limit of a whole test (`timeout` in pyproject.toml)."""
_NAP_S = 0.01


def next_week() -> str:
    """Return a time for `not_before` that no test lives to see."""
    return (Clock().now() + timedelta(days=7)).isoformat()


async def until(what: str, condition: Callable[[], Awaitable[Any]], seconds: float = LIMIT) -> Any:
    """Return the condition's first true value; fail with what was waited for."""
    end = time.monotonic() + seconds
    while True:
        value = await condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds} s in vain for: {what}"
        await asyncio.sleep(0.02)


def wait_for(what: str, condition: Callable[[], Any], seconds: float = LIMIT) -> Any:
    """Wait as `until` does, for a test without a loop."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"waited {seconds} s in vain for: {what}"
        time.sleep(0.05)


async def soon(awaited: Awaitable[T], seconds: float = LIMIT) -> T:
    """Return the result of `awaited`; raise TimeoutError instead of hanging."""
    return await asyncio.wait_for(awaited, seconds)


class Stopwatch:
    """Measures how long something takes apart from what the machine does for others.

    Beside it a reference runs in the same loop: a nap of 10 ms and, with a client, one durable write, again and again.
    What a round takes beyond its nap and beyond the CPU time of this process is the time of other processes: `lost`.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.lost = 0.0

    @property
    def seconds(self) -> float:
        """The seconds so far, without those that were lost."""
        return time.monotonic() - self.began - self.lost

    async def _rounds(self, write: Callable[[], Awaitable[Any]] | None) -> None:
        while True:
            began, cpu = time.monotonic(), time.process_time()
            try:
                await asyncio.sleep(_NAP_S)
                if write is not None:
                    await write()
            finally:
                self.lost += max(0.0, time.monotonic() - began - max(_NAP_S, time.process_time() - cpu))


@asynccontextmanager
async def stopwatch(redis: Any = None) -> AsyncIterator[Stopwatch]:
    """Run a stopwatch inside the block; `redis`: count the waits for its disk as well."""
    watch = Stopwatch()
    reference = asyncio.create_task(watch._rounds((lambda: redis.set("reference", "1")) if redis is not None else None))
    try:
        yield watch
    finally:
        reference.cancel()
        await asyncio.gather(reference, return_exceptions=True)
