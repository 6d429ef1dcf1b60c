"""Rebuild an app's indexes of jobs that were set aside: that of all from those by status, others from the records.

Until then a list by the index's status, model, end user or term may lack jobs. Several workers may rebuild the same
index at once.
"""

from __future__ import annotations

from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable
from worker.jobs.record import Job
from worker.store import keys
from worker.store.connection.pool import keyring_of
from worker.store.errors import store_errors
from worker.store.jobs.index_search import rebuild_index_of_all
from worker.store.jobs.scripts import Scripts
from worker.store.jobs.search_terms import indexes_of_terms
from worker.store.jobs.unreadable_records import read_job
from worker.store.values import pipeline_replies

_PAGE: Final = 500
_PAGES_PER_CALL: Final = 20  # the caller has other work; the next call goes on


class IndexRepair:
    """Remembers which indexes are to be rebuilt, and how far it has come with each."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._scripts = redis, clock, Scripts(redis)
        self._from: dict[str, int] = {}

    def add(self, index: str) -> None:
        """Rebuild this index, from the app's first job on."""
        self._from[index] = 0

    async def proceed(self) -> None:
        """Add jobs to the indexes for a while.

        Raises StoreUnavailable, and RecordUnreadable while the index of all can't be read.
        """
        for index in list(self._from):
            app, _, rest = index.removeprefix(keys.index("")).partition(":")
            kind, _, value = rest.partition(":")
            if not kind:
                await rebuild_index_of_all(self._redis, app)
                del self._from[index]
                continue
            for _ in range(_PAGES_PER_CALL):
                if not await self._page(index, app, kind, value):
                    del self._from[index]
                    break

    async def _page(self, index: str, app: str, kind: str, value: str) -> bool:
        """Add the jobs of one page that belong to the index; return whether there may be more."""
        low = self._from[index]
        async with store_errors("rebuild an index", keys.index(app)):
            rows = await self._redis.zrangebyscore(keys.index(app), low, "+inf", start=0, num=_PAGE, withscores=True)
            names = [row[0].decode(errors="replace") for row in rows]
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hmget(keys.job(name), "rec", "mac")
                records = await pipeline_replies(pipe, [keys.job(name) for name in names]) if names else []
        async with store_errors("rebuild an index", keys.terms(app)):
            terms = await self._redis.hmget(keys.terms(app), names) if names else []
        fresh = dict[str, int]()
        macs = keyring_of(self._redis).macs
        for name, row, of_job in zip(names, records, terms, strict=True):
            try:
                job = read_job(macs, name, *(row or (b"", b"")))
            except RecordUnreadable:
                continue  # it is set aside when it is read
            own = {"model": job.requested_model, "user": job.safety_identifier, "status": job.status}
            if own.get(kind) != value and index not in indexes_of_terms(app, of_job):
                continue
            if kind == "status" and not job.settled:
                await self._add_waiting(index, job)
            else:
                fresh[name] = to_ms(job.created_at)
        if fresh:
            async with store_errors("rebuild an index", index):
                await self._redis.zadd(index, fresh)
        if len(rows) < _PAGE:
            return False
        last = int(rows[-1][1])
        self._from[index] = last if last > low else low + 1
        return True

    async def _add_waiting(self, index: str, job: Job) -> None:
        """Add a job to the index of its status, unless it has changed since it was read."""
        async with store_errors("rebuild an index", index):
            command = ("ZADD", index, to_ms(job.created_at), job.id)
            await self._scripts.commit(job.id, job.version, "", self._clock.random_bytes(16).hex(), [command])
