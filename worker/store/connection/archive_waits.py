"""Tells which tasks wait for the archive, so that a limit of the time for Redis leaves that time out."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final
from weakref import WeakKeyDictionary

_waiting: Final[dict[asyncio.Task[object], float]] = {}
_spent: Final[WeakKeyDictionary[asyncio.Task[object], float]] = WeakKeyDictionary()


class waiting_for_archive:  # noqa: N801  used like a contextlib function
    """Note that the current task waits for the archive, not for Redis. What is in the block has a limit of its own."""

    __slots__ = ("_task",)

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is not None:
            _waiting[self._task] = asyncio.get_running_loop().time()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            now = asyncio.get_running_loop().time()
            began = _waiting.pop(self._task, now)
            _spent[self._task] = _spent.get(self._task, 0.0) + now - began


def waited(task: asyncio.Task[object] | None) -> float:
    """Return the seconds that the task has waited for the archive so far."""
    if task is None or not (_spent or _waiting):
        return 0.0
    now = asyncio.get_running_loop().time()
    return _spent.get(task, 0.0) + now - _waiting.get(task, now)
