"""Count the jobs of every app by status, for operators: from the indexes, without reading a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from arq.connections import ArqRedis

from worker.jobs.states import Status
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.stats.queue_depth import apps

MAX_APPS: Final = 500


@dataclass(frozen=True, slots=True)
class AppCounts:
    """How many jobs of an app are kept, by status."""

    app: str
    by_status: dict[Status, int]

    @property
    def total(self) -> int:
        """Return the number of all its jobs."""
        return sum(self.by_status.values())


async def count_by_app(redis: ArqRedis) -> tuple[list[AppCounts], int]:
    """Return (the counts of the first apps by name, how many apps there are)."""
    names = await apps(redis)
    async with store_errors("count jobs"), redis.pipeline(transaction=False) as pipe:
        for app in names[:MAX_APPS]:
            for status in Status:
                pipe.zcard(keys.index(app, "status", status))
        replies = await pipe.execute(raise_on_error=False)
    width = len(Status)
    rows = [replies[at : at + width] for at in range(0, len(replies), width)]
    counts = [[one if isinstance(one, int) else 0 for one in row] for row in rows]  # an index may be unreadable
    found = [AppCounts(app, dict(zip(Status, row, strict=True))) for app, row in zip(names, counts, strict=False)]
    return found, len(names)
