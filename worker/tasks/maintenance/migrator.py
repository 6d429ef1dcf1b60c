"""Runs the migrations of the store beside a worker's other work, a step at a time with a pause between them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.store.lifecycle.migration_runner import MigrationRunner
from worker.store.lifecycle.migrations import migrations_of
from worker.tasks.loop import loop_pass

_INTERVAL_S: Final = 5.0
_PAUSE_S: Final = 0.05


class Migrator:
    """Looks every five seconds whether a migration can be done, until cancelled."""

    def __init__(self, redis: ArqRedis, clock: Clock, worker_id: str) -> None:
        self._runner = MigrationRunner(redis, clock, worker_id, migrations_of(redis, clock))

    async def run(self) -> None:
        """Look, and do one step after the other while there are any; through every loss of Redis."""
        while True:
            more = False
            with contextlib.suppress(StoreUnavailable), loop_pass("migrations of the store"):
                more = await self._runner.step()
            await asyncio.sleep(_PAUSE_S if more else _INTERVAL_S)
