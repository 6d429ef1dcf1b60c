"""Runs long work on the event loop in short slices, with pauses between, so that requests are served meanwhile.

For work that takes seconds and is begun seldom, by a person. A thread would share the interpreter with the
loop and make each of its turns wait for up to 5 ms; here a turn waits for one slice, and most of the time is free.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
_SLICE_S: Final = 0.004
_PAUSE: Final = 2.0
"""A pause is so many times as long as the slice before it."""
_MAX_PAUSE_S: Final = 0.1


class Slices:
    """The slices of one long piece of work."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    async def rest(self) -> None:
        """Pause if this slice has lasted long enough."""
        worked = self._loop.time() - self._began
        if worked >= _SLICE_S:
            await asyncio.sleep(min(_MAX_PAUSE_S, _PAUSE * worked))
            self._began = self._loop.time()


async def in_slices(steps: Iterable[T]) -> AsyncIterator[T]:
    """Yield what `steps` yields, with a pause after each slice; one step must be short."""
    slices = Slices()
    for step in steps:
        yield step
        await slices.rest()
