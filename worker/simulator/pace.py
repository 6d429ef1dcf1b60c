"""Runs simulated time. Its speed may change at any moment, and pending waits follow at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable

from .wire import Step

_SHORTEST = 0.0005  # real seconds; a shorter wait isn't worth a timer, the schedule catches up
_BURST = 32  # steps without a wait before other tasks get their turn


class Pace:
    """A clock of simulated seconds; `speed` of them pass in a real one."""

    def __init__(self, speed: float) -> None:
        """Check the speed (ValueError)."""
        self.speed = _checked(speed)
        self._since, self._passed = time.monotonic(), 0.0  # when the speed was set, and the simulated time then
        self._waiting: set[asyncio.Future[None]] = set()

    def now(self) -> float:
        """Return the simulated seconds so far."""
        return self._passed + (time.monotonic() - self._since) * self.speed

    def change(self, speed: float) -> None:
        """Set another speed (ValueError), also for pending waits."""
        speed = _checked(speed)
        self._passed, self._since = self.now(), time.monotonic()
        self.speed = speed
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of simulated seconds."""
        await self.until(self.now() + seconds)

    async def until(self, due: float) -> None:
        """Wait until this simulated time."""
        loop = asyncio.get_running_loop()
        while (left := (due - self.now()) / self.speed) > _SHORTEST:
            waiter = loop.create_future()
            timer = loop.call_later(left, _wake, waiter)
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiting.discard(waiter)

    async def steps(self, steps: Iterable[Step]) -> AsyncIterator[Step]:
        """Yield the steps on an absolute schedule, so that delays don't add up."""
        due, burst = self.now(), 0
        for step in steps:
            if step.wait == math.inf:
                await asyncio.Event().wait()
            due += step.wait
            burst += 1
            if (due - self.now()) / self.speed > _SHORTEST:
                await self.until(due)
                burst = 0
            elif burst >= _BURST:
                await asyncio.sleep(0)
                burst = 0
            yield step


def _checked(speed: float) -> float:
    if not (speed > 0 and math.isfinite(speed)):
        raise ValueError("speed must be a number above 0")
    return speed


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
