"""When a process reads many streams: those that nobody watches are read in slices, several deltas at a time.

A reader that is woken for each delta costs more than the delta: the loop's pass, the task's switch, one layer after the
other. What arrives while a reader rests waits in its connection, and is read together. Nobody waits for a delta there:
the text of a job that nobody watches is stored twice a second anyway.
"""

from __future__ import annotations

import asyncio
from typing import Final

MANY_STREAMS: Final = 300
"""From so many streams on: below it a process has time enough, and the end of an answer is noticed at once."""
SLICE_S: Final = 0.2
"""Seconds for which a reader rests at most, and by which the end of its stream may be noticed late."""
_PHASES: Final = 8  # of the readers that rest, so that they don't all go on in the same moment


class ReadingPace:
    """The readers of this process, and those of them that rest."""

    def __init__(self) -> None:
        self.streams = 0
        self._resting = tuple[list[asyncio.Future[None]], ...]([] for _ in range(_PHASES))
        self._phase = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_slices(self) -> bool:
        """Return whether readers of streams that nobody watches should rest between two looks."""
        return self.streams >= MANY_STREAMS

    async def rest(self) -> None:
        """Wait for the end of the slice."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        self._resting[self._phase].append(ended)
        if self._timer is None:
            self._timer = loop.call_later(SLICE_S / _PHASES, self._go_on)
        await ended

    def _go_on(self) -> None:
        self._phase = (self._phase + 1) % _PHASES
        woken, self._timer = self._resting[self._phase][:], None
        self._resting[self._phase].clear()
        for ended in woken:
            if not ended.done():  # its reader may have been cancelled
                ended.set_result(None)
        if any(self._resting):
            self._timer = asyncio.get_running_loop().call_later(SLICE_S / _PHASES, self._go_on)
