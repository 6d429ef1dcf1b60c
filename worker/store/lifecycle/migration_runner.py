"""Run the migrations: in one worker at a time, step by step, and only while no older process uses the store.

How far each has come is in Redis, so another worker goes on when one dies. Where an older process comes back during a
migration or after it, that is done once more when the process has gone: it may have written as before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.stored_fields import dump_fields
from worker.jobs.timestamps import iso_ms
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.lifecycle.migrations import Migration
from worker.store.stats.live_processes import live_processes
from worker.store.stats.migration_progress import START, MigrationProgress, read_progress, statuses_of
from worker.telemetry.events import emit

LOCK_SECONDS: Final = 15
"""How long a worker that has died in a step keeps the others from going on."""


class MigrationRunner:
    """Runs the migrations in a worker."""

    def __init__(self, redis: ArqRedis, clock: Clock, worker_id: str, migrations: Sequence[Migration]) -> None:
        """`migrations`: all that this release knows, in order; `worker_id`: as in its heartbeat."""
        self._redis, self._clock, self._worker_id, self._migrations = redis, clock, worker_id, migrations
        self._advance: Any = script(redis, "lifecycle/advance_migration")

    async def step(self) -> bool:
        """Do one step of the first migration that is to be done; return whether there may be more to do now.

        Raises StoreUnavailable, RecordUnreadable, and what the step raises: then the next call tries it again.
        """
        alive = await live_processes(self._redis, self._clock)
        if not any(one.kind == "worker" and one.id == self._worker_id for one in alive):
            return False  # not even this worker's heartbeat is there: nobody knows who lives
        numbers = [one.number for one in self._migrations]
        found = statuses_of(numbers, await read_progress(self._redis, numbers), alive)
        for status in found:
            if status.progress.state != "to_do" and status.waits_for and await self._lock():
                await self._store(status.number, MigrationProgress(), keep_lock=False)
        rows = zip(self._migrations, found, strict=True)
        first = next((row for row in rows if row[1].progress.state != "done"), None)
        if first is None or first[1].waits_for or not await self._lock():
            return False
        try:
            return await self._step(first[0])
        except BaseException:
            await self._give_back()  # whoever can do the step may do it at once
            raise

    async def _step(self, migration: Migration) -> bool:
        # read again, under the lock: the worker that had it before may have come further
        progress = (await read_progress(self._redis, [migration.number]))[0]
        if progress.state == "done":
            await self._give_back()
            return True
        if progress.state == "to_do":
            progress = replace(progress, state="running", began_at=iso_ms(self._clock.now()))
            emit("migration.began", version=migration.number, worker=self._worker_id)
        after = await migration.step(progress.cursor)
        progress = replace(progress, cursor=after.cursor or START, count=progress.count + after.seen)
        if after.cursor is None:
            progress = replace(progress, state="done", ended_at=iso_ms(self._clock.now()))
        is_over = after.cursor is None
        if await self._store(migration.number, progress, keep_lock=not is_over) and is_over:
            emit("migration.done", version=migration.number, worker=self._worker_id, count=progress.count)
        return True

    async def _lock(self) -> bool:
        async with store_errors("lock the migrations", keys.MIGRATION_LOCK):
            if await self._redis.set(keys.MIGRATION_LOCK, self._worker_id, nx=True, px=LOCK_SECONDS * 1000):
                return True
            holder = await self._redis.get(keys.MIGRATION_LOCK)
        return bool(holder == self._worker_id.encode())

    async def _give_back(self) -> None:
        async with store_errors("give the migrations back", keys.MIGRATION_LOCK):
            await self._advance(keys=[keys.MIGRATION_LOCK, keys.MIGRATIONS], args=[self._worker_id, 0])

    async def _store(self, number: int, progress: MigrationProgress, *, keep_lock: bool) -> bool:
        """Store the progress if this worker has the lock, which it then keeps or gives back; return whether it had."""
        lock_ms = LOCK_SECONDS * 1000 if keep_lock else 0
        args = [self._worker_id, lock_ms, number, json.dumps(dump_fields(progress))]
        async with store_errors("note how far a migration has come", keys.MIGRATIONS):
            return bool(await self._advance(keys=[keys.MIGRATION_LOCK, keys.MIGRATIONS], args=args))
