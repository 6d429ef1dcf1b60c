"""How long a request may wait for Redis in total, so that a hanging Redis causes a quick 503 and not a hang.

What it waits for the archive is not counted: each read of that has a limit of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Final, TypeVar

from starlette.requests import Request

from worker.jobs.errors import StoreUnavailable
from worker.store.connection.archive_waits import waited

T = TypeVar("T")
STORE_TIMEOUT_S: Final = 1.5
"""Of one request in total, and of each store operation outside of one."""
_MIN_TIMEOUT_S: Final = 0.05
_ON_TIME_S: Final = 0.02
_MAX_LATENESS: Final = 5
_SCOPE_KEY: Final = "vigil.store_seconds_left"


async def with_deadline(request: Request, operation: Awaitable[T]) -> T:
    """Return the result of a store operation; raise StoreUnavailable once the request has waited STORE_TIMEOUT_S."""
    loop = asyncio.get_running_loop()
    began, left = loop.time(), request.scope.get(_SCOPE_KEY, STORE_TIMEOUT_S)
    task = asyncio.current_task()
    in_archive = waited(task)
    try:
        async with StoreTimeout(left):
            return await operation
    except TimeoutError:
        raise _too_long() from None
    finally:
        took = loop.time() - began - (waited(task) - in_archive)
        request.scope[_SCOPE_KEY] = max(_MIN_TIMEOUT_S, left - took)


async def with_timeout(seconds: float, operation: Awaitable[T]) -> T:
    """Return the result of a store operation; raise StoreUnavailable after `seconds`."""
    try:
        async with StoreTimeout(seconds):
            return await operation
    except TimeoutError:
        raise _too_long() from None


def _too_long() -> StoreUnavailable:
    return StoreUnavailable("Redis took too long")


class StoreTimeout:
    """Raise TimeoutError in the block after `seconds`, in which this process itself was able to read an answer.

    A loop that comes late to the timer comes late to the answers that have arrived, too; then the block gets more
    time, up to _MAX_LATENESS times as much, and Redis is not blamed for what kept this process busy. Nor does the time
    count in which the task waits for the archive. Cancels the task as `asyncio.timeout` does, for half of its price:
    each request is in such a block.
    """

    __slots__ = ("_before", "_due", "_expired", "_in_archive", "_last", "_loop", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._due, self._last = now + seconds, now + _MAX_LATENESS * seconds
        self._expired = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a timeout needs a task")
        self._task, self._before, self._in_archive = task, task.cancelling(), waited(task)
        self._timer = self._loop.call_at(self._due, self._check)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _check(self) -> None:
        now = self._loop.time()
        late = now - self._due
        in_archive = waited(self._task)
        if in_archive > self._in_archive:
            more, self._in_archive = max(in_archive - self._in_archive, _MIN_TIMEOUT_S), in_archive
            self._due, self._last = now + more, now + _MAX_LATENESS * more
            self._timer = self._loop.call_at(self._due, self._check)
        elif late > _ON_TIME_S and now < self._last:
            self._due = min(self._last, now + 4 * late)  # an answer takes a few turns of the loop
            self._timer = self._loop.call_at(self._due, self._check)
        else:
            self._expired = True
            self._task.cancel()
