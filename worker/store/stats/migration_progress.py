"""How far each migration of the store has come, as it is kept in Redis, and which older processes it waits for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.stored_fields import StoredFields, load_fields
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.stats.live_processes import LiveProcess, live_processes
from worker.store.store_schema import STORE_SCHEMA
from worker.store.values import readable

START: Final = ""
"""The cursor before the first step."""
ALL: Final = range(1, STORE_SCHEMA + 1)
"""The numbers of the migrations that this release knows."""

State = Literal["to_do", "running", "done"]


@dataclass(frozen=True, slots=True)
class MigrationProgress(StoredFields):
    """How far a migration has come: where its next step begins, and how many values were looked at."""

    state: State = "to_do"
    cursor: str = START
    count: int = 0
    began_at: str = ""
    ended_at: str = ""


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """How far the migration of this number has come, and the processes that it waits for."""

    number: int
    progress: MigrationProgress
    waits_for: tuple[LiveProcess, ...] = ()


async def read_migrations(redis: ArqRedis, clock: Clock, numbers: Sequence[int] = ALL) -> list[MigrationStatus]:
    """Return the status of each of these migrations. Raises StoreUnavailable, RecordUnreadable."""
    return statuses_of(numbers, await read_progress(redis, numbers), await live_processes(redis, clock))


def statuses_of(
    numbers: Sequence[int], found: Sequence[MigrationProgress], alive: Sequence[LiveProcess]
) -> list[MigrationStatus]:
    """Return the status of each of these migrations, by its progress and by who lives."""
    older = {number: tuple(process for process in alive if process.store_schema < number) for number in numbers}
    return [MigrationStatus(number, one, older[number]) for number, one in zip(numbers, found, strict=True)]


async def read_progress(redis: ArqRedis, numbers: Sequence[int]) -> list[MigrationProgress]:
    """Return how far each of these migrations has come; what can't be read begins again: each step may be repeated."""
    async with store_errors("read the migrations", keys.MIGRATIONS):
        rows = await redis.hmget(keys.MIGRATIONS, [str(number) for number in numbers])
    out = list[MigrationProgress]()
    for raw in rows:
        found = [one for _, one in readable([(keys.MIGRATIONS, raw)], _load)]
        out.append(found[0] if found else MigrationProgress())
    return out


async def begin_again(redis: ArqRedis, numbers: Sequence[int] = ALL) -> None:
    """Have these migrations done once more from their beginning. A step that runs now stores nothing any more."""
    async with store_errors("begin the migrations again", keys.MIGRATIONS), redis.pipeline(transaction=True) as pipe:
        pipe.delete(keys.MIGRATION_LOCK)
        pipe.hdel(keys.MIGRATIONS, *(str(number) for number in numbers))
        await pipe.execute()


def _load(raw: bytes) -> MigrationProgress:
    progress = load_fields(MigrationProgress, json.loads(raw))
    texts = (progress.cursor, progress.began_at, progress.ended_at)
    if progress.state not in ("to_do", "running", "done") or not all(isinstance(text, str) for text in texts):
        raise ValueError("not the progress of a migration")
    if type(progress.count) is not int:
        raise ValueError("not the progress of a migration")
    return progress
