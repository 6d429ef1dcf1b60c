"""Keeps the archive of outputs: moves there what Redis had to keep, and deletes what no job refers to any more."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import ArchiveUnavailable
from worker.store.jobs.output_archive import archive_of
from worker.store.lifecycle.output_objects import OutputObjects
from worker.tasks.loop import run_every

INTERVAL_S: Final = 10.0
_MAX_PASS_S: Final = 30.0  # what is left is for the next pass


class OutputArchiver:
    """Works in passes until cancelled; without an archive it has nothing to do."""

    def __init__(self, redis: ArqRedis, clock: Clock, interval: float = INTERVAL_S) -> None:
        archive = archive_of(redis)
        self._interval = interval
        self.objects = OutputObjects(redis, clock, archive) if archive is not None else None

    async def run(self) -> None:
        """Do a pass now and then, in one worker at a time."""
        if self.objects is None:
            await asyncio.get_running_loop().create_future()
        await run_every(self._interval, "outputs in the archive", self._turn)

    async def _turn(self) -> None:
        if self.objects is not None and await self.objects.take_turn(self._interval * 0.9):
            await self.work()

    async def work(self) -> None:
        """Delete and move what is due. Raises StoreUnavailable."""
        if self.objects is None:
            return
        until = time.monotonic() + _MAX_PASS_S
        while await self.objects.sweep() and time.monotonic() < until:
            pass
        try:
            while await self.objects.move() and time.monotonic() < until:
                pass
        except ArchiveUnavailable:
            pass  # it was told, and the outputs stay in Redis
