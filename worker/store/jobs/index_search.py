"""Search the indexes of an app's jobs: the ids that are in one index of each group, newest first, some at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arq.connections import ArqRedis

from worker.jobs import ids
from worker.jobs.errors import RecordUnreadable
from worker.jobs.states import Status
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies, report_unreadable


class IndexSearch:
    """One search. `read`: how many members it has looked at; `ended`: it has found all; `last`: where it stands."""

    def __init__(
        self, redis: ArqRedis, app: str, groups: Sequence[Sequence[str]], scores: tuple[str, str], last: str
    ) -> None:
        """`groups`: of indexes; `scores`: the lowest and the highest; `last`: the id after which it begins, or ""."""
        self._redis, self._app, self._scores, self._all = redis, app, scores, keys.index(app)
        self._groups = [list(group) for group in groups]
        self._script: Any = script(redis, "jobs/search")
        self.read, self.ended, self.last = 0, False, last

    @property
    def is_simple(self) -> bool:
        """Return whether every member of its indexes is a match."""
        return len(self._groups) == 1

    async def next(self, most: int) -> list[str]:
        """Return the ids among the next `most` members of the smallest group; they may be none."""
        names = [name for group in self._groups for name in group]
        at = ids.time_ms(self.last) if self.last else ""
        args = [*self._scores, at, self.last, most, *map(len, self._groups)]
        self.read += most
        async with store_errors("search jobs"):
            found, last = await self._script(keys=names, args=args)
        if found is None:
            await self._set_aside(last.decode(errors="replace"))
            return []
        rows = [row.decode(errors="replace") for row in found]
        position = last.decode(errors="replace")
        if not all(map(ids.is_job_id, rows)) or (position and not self._moves_on(position)):
            await self._remove_invalid([*found, last])
            return []  # the same members are read again, without those
        if position:
            self.last = position
        else:
            self.ended = True
        return rows

    def _moves_on(self, position: str) -> bool:
        return ids.is_job_id(position) and (not self.last or position < self.last)

    async def count(self) -> int | None:
        """Return how many members its indexes have in its range, or None where they must be compared."""
        if not self.is_simple:
            return None
        async with store_errors("count jobs"), self._redis.pipeline(transaction=False) as pipe:
            for name in self._groups[0]:
                pipe.zcount(name, *self._scores)
            return sum(reply or 0 for reply in await pipeline_replies(pipe, self._groups[0]))

    async def forget(self, gone: Sequence[str | bytes]) -> None:
        """Remove jobs from these indexes whose retention time is over."""
        if not gone:
            return
        async with store_errors("forget jobs"), self._redis.pipeline(transaction=False) as pipe:
            for group in self._groups:
                for name in group:
                    pipe.zrem(name, *gone)
            await pipe.execute()

    async def _remove_invalid(self, rows: Sequence[bytes]) -> None:
        """Remove members that name no job, or one that was made at another time than their score: Vigil writes none."""
        invalid = [row for row in rows if row and not ids.is_job_id(row.decode(errors="replace"))]
        await self.forget(invalid or rows[-1:])

    async def _set_aside(self, index: str) -> None:
        """Set an index of another type aside, and search without it."""
        async with store_errors("set an index aside", index):
            await script(self._redis, "lifecycle/check_types")(keys=[index], args=["zset"])
        report_unreadable(RecordUnreadable(index, "wrong_type"))
        if index == self._all:
            await rebuild_index_of_all(self._redis, self._app)
        self._groups = [group for group in self._groups if index not in group] or [[self._all]]


async def rebuild_index_of_all(redis: ArqRedis, app: str) -> None:
    """Add every job of the indexes by status to the app's index of all."""
    names = [keys.index(app), *(keys.index(app, "status", status) for status in Status)]
    async with store_errors("rebuild an index"):
        await redis.zunionstore(names[0], names, aggregate="MAX")
