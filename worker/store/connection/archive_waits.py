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
            began = _waiting.pop(self._task)
            _spent[self._task] = _spent.get(self._task, 0.0) + asyncio.get_running_loop().time() - began


def is_waiting(task: asyncio.Task[object]) -> bool:
    """Return whether the task waits for the archive now."""
    return task in _waiting


def take_spent(task: asyncio.Task[object] | None) -> float:
    """Return the seconds that the task has waited for the archive since this was asked last."""
    return _spent.pop(task, 0.0) if _spent and task is not None else 0.0
