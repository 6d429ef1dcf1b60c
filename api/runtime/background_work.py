"""Tasks that a request starts and does not wait for; they end with the process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundWork:
    """The tasks that are under way."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task, which tells of its own faults."""
        _ = self._task(name, work)

    async def finished(self, name: str, work: Coroutine[Any, Any, Any], seconds: float) -> bool:
        """Return whether the work ends within `seconds`; it goes on to its end in any case. Raises what it raises."""
        task = self._task(name, work)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            await task
        return bool(done)

    async def completed(self, name: str, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of the work, which goes on to its end if this call is cancelled. Raises what it raises."""
        return await asyncio.shield(self._task(name, work))

    def _task(self, name: str, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=f"vigil-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits for it is told

    async def stop(self) -> None:
        """Cancel what is under way and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
