"""Values that many open pages show: each is read again at most every so many seconds, however many pages ask for it.

A page asks with the version that it has; while that is the newest one, nothing is rendered and nothing is sent.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from worker.clock import Clock

T = TypeVar("T")
_MAX_VALUES: Final = 2_000


@dataclass(frozen=True, slots=True)
class LiveValue(Generic[T]):
    """A value as it was read last; `version` is another one after each change."""

    value: T
    version: str
    read_at: float


class LiveValues:
    """The values of this process, by name; those that nobody asks for are dropped for newer ones."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._values: OrderedDict[str, LiveValue[Any]] = OrderedDict()
        self._reading: dict[str, asyncio.Task[LiveValue[Any]]] = {}
        self._changes = 0
        self._run = clock.random_bytes(4).hex()  # versions of another process are others

    async def read(self, name: str, seconds: float, load: Callable[[], Awaitable[T]]) -> LiveValue[T]:
        """Return the value, read at most `seconds` ago; those who ask meanwhile share one read.

        Raises what `load` raises.
        """
        known = self._values.get(name)
        if known is not None and self._clock.monotonic() - known.read_at < seconds:
            self._values.move_to_end(name)
            return known
        task = self._reading.get(name)
        if task is None:
            task = self._reading[name] = asyncio.ensure_future(self._load(name, load))
            task.add_done_callback(lambda done: self._finish(name, done))
        return await asyncio.shield(task)

    def age(self, name: str) -> float | None:
        """Return how many seconds ago the value was read, or None if it is not known."""
        known = self._values.get(name)
        return None if known is None else self._clock.monotonic() - known.read_at

    def forget(self, name: str) -> None:
        """Read this value anew when it is asked for next: it was just changed."""
        known = self._values.get(name)
        if known is not None:
            self._values[name] = replace(known, read_at=-math.inf)

    async def _load(self, name: str, load: Callable[[], Awaitable[Any]]) -> LiveValue[Any]:
        at, value = self._clock.monotonic(), await load()
        known = self._values.get(name)
        if known is not None and known.value == value:
            version = known.version
        else:
            self._changes += 1
            version = f"{self._run}.{self._changes}"
        found = self._values[name] = LiveValue(value, version, at)
        self._values.move_to_end(name)
        while len(self._values) > _MAX_VALUES:
            self._values.popitem(last=False)
        return found

    def _finish(self, name: str, task: asyncio.Task[LiveValue[Any]]) -> None:
        self._reading.pop(name, None)
        if not task.cancelled():
            task.exception()  # whoever waits gets it; nobody may wait any more
