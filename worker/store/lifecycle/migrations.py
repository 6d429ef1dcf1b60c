"""The migrations of the store, in order: what must be done to older data once no older process writes it any more.

Each has a number, goes forward only, and works in bounded steps that may be repeated: a step is done again when a
worker dies in it. `migration_runner.py` decides when. To add one: a class below, its line in `migrations_of`, and
STORE_SCHEMA one higher. It must leave what older processes read, because one may come back.
"""

from __future__ import annotations

import json
from typing import NamedTuple, Protocol

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.store.end_users.quarantine import Quarantine
from worker.store.lifecycle.search_backfill import SearchBackfill
from worker.store.stats import queue_depth


class MigrationStep(NamedTuple):
    """The result of a step: where the next one begins, None after the last; and how many values were looked at."""

    cursor: str | None
    seen: int


class Migration(Protocol):
    """One migration."""

    number: int
    what: str
    """What is true once it is done, for operators."""

    async def step(self, cursor: str) -> MigrationStep:
        """Do a bounded part of the work, from the cursor on. Raises StoreUnavailable, RecordUnreadable, KeyMissing."""
        ...


class IndexTerms:
    """Adds the jobs to the search that workers of a release without it have ended, after these were indexed."""

    number, what = 1, "every job is in the indexes of the search"

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._backfill = redis, SearchBackfill(redis, clock)

    async def step(self, cursor: str) -> MigrationStep:
        """Index a page of one app's jobs; the cursor is the app and the time of creation."""
        app, low = json.loads(cursor) if cursor else ("", 0)
        apps = [name for name in sorted(await queue_depth.apps(self._redis)) if name >= app]
        if not apps:
            return MigrationStep(None, 0)
        after, count = await self._backfill.index_page(apps[0], low if apps[0] == app else 0)
        if after is not None:
            return MigrationStep(json.dumps([apps[0], after]), count)
        return MigrationStep(json.dumps([apps[1], 0]) if len(apps) > 1 else None, count)


class IndexQuarantineEnds:
    """Lets the sweep find the ends of quarantines that workers of a release without it have begun."""

    number, what = 2, "every quarantine with an end is ended by the sweep"

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._quarantine = Quarantine(redis, clock)

    async def step(self, cursor: str) -> MigrationStep:
        """Enter the ends of some rows; the cursor is that of the scan."""
        after, count = await self._quarantine.index_some_ends(int(cursor or 0))
        return MigrationStep(str(after) if after else None, count)


def migrations_of(redis: ArqRedis, clock: Clock) -> list[Migration]:
    """Return all migrations that this release knows, in order."""
    return [IndexTerms(redis, clock), IndexQuarantineEnds(redis, clock)]
