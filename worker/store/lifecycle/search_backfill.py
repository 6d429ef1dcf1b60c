"""Add jobs of older releases to the indexes of their terms, once for each app.

Every commit keeps these indexes, so there is nothing to do but after an update from a release without them, or when an
app's rows of terms are lost. Until it is done a list by metadata, served model or code may lack older jobs. Several
workers may do it at once. What workers of the older release end after it, the first migration adds (`migrations.py`).
"""

from __future__ import annotations

import asyncio
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.jobs.record import Job
from worker.store import keys
from worker.store.connection.job_keys import require_object
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets
from worker.store.connection.pool import keyring_of
from worker.store.envelope import PRIVATE
from worker.store.errors import store_errors
from worker.store.jobs.scripts import Scripts
from worker.store.jobs.search_terms import end_terms, first_terms, forget_terms_command, terms_command
from worker.store.jobs.unreadable_records import read_job
from worker.store.values import pipeline_replies

_PAGE: Final = 250
_JOBS_AT_ONCE: Final = 25  # that are decoded before the event loop serves others
_PAGES_PER_CALL: Final = 8  # the caller has other work; the next call goes on


class SearchBackfill:
    """Remembers how far it has come with each app."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._scripts = redis, clock, Scripts(redis)
        self._secrets = KeptSecrets(redis, clock)
        self._from: dict[str, int] = {}

    async def proceed(self, apps: list[str]) -> None:
        """Index the next jobs of the apps that lack it. Raises StoreUnavailable, RecordUnreadable."""
        if not apps:
            return
        try:
            await self._secrets.get(DIGEST)
        except (KeyMissing, ContentDamaged, RecordUnreadable):
            return  # a worker that has the key does it
        async with store_errors("look for what is indexed"), self._redis.pipeline(transaction=False) as pipe:
            for app in apps:
                pipe.hget(keys.terms(app), keys.COMPLETE)
            marks = await pipeline_replies(pipe, map(keys.terms, apps))
        pages = _PAGES_PER_CALL
        for app in [app for app, mark in zip(apps, marks, strict=True) if not mark]:
            while pages and await self._page(app):
                pages -= 1
            if not pages:
                return

    async def index_page(self, app: str, low: int) -> tuple[int | None, int]:
        """Add the app's next jobs from a time of creation on (ms) to the indexes of their terms, where they lack them.

        Return (from where to go on, None at the end; how many jobs were looked at). Raises StoreUnavailable,
        RecordUnreadable; KeyMissing, ContentDamaged without the key of the terms.
        """
        await self._secrets.get(DIGEST)
        async with store_errors("list an app's jobs", keys.index(app)):
            rows = await self._redis.zrangebyscore(keys.index(app), low, "+inf", start=0, num=_PAGE, withscores=True)
        names = [name.decode(errors="replace") for name, _ in rows]
        for number, (name, fields) in enumerate(zip(names, await self._fields(app, names), strict=True), 1):
            if number % _JOBS_AT_ONCE == 0:
                await asyncio.sleep(0)
            if fields is not None:
                await self._index(app, name, *fields)
        if len(rows) < _PAGE:
            return None, len(rows)
        last = int(rows[-1][1])
        return (last if last > low else low + 1), len(rows)

    async def _page(self, app: str) -> bool:
        """Index the next page of the app's jobs; return whether there may be more."""
        after, _ = await self.index_page(app, self._from.get(app, 0))
        if after is None:
            async with store_errors("note what is indexed", keys.terms(app)):
                await self._redis.hset(keys.terms(app), keys.COMPLETE, to_ms(self._clock.now()))
            self._from.pop(app, None)
            return False
        self._from[app] = after
        return True

    async def _fields(self, app: str, names: list[str]) -> list[tuple[bytes, ...] | None]:
        """Return record, tag, private part and row of terms of each job, b"" for what it lacks; None where there is no
        record.
        """
        if not names:
            return []
        async with store_errors("read jobs"), self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(keys.job(name), "rec", "mac", "priv")
            found = await pipeline_replies(pipe, [keys.job(name) for name in names])
        async with store_errors("read terms", keys.terms(app)):
            known = await self._redis.hmget(keys.terms(app), names)
        rows = zip(found, known, strict=True)
        return [tuple(one or b"" for one in (*row, mark)) if row and row[0] else None for row, mark in rows]

    async def _index(self, app: str, name: str, record: bytes, tag: bytes, private: bytes, known: bytes) -> None:
        """Add one job to the indexes of its terms, unless it has changed since it was read."""
        try:
            job = read_job(keyring_of(self._redis).macs, name, record, tag)
            terms = [*await self._first_terms(job, private), *(end_terms(job) if job.settled else ())]
        except (RecordUnreadable, KeyMissing, ContentDamaged):
            return  # what can't be read can't be searched
        if job.app != app or set(terms) <= set(known.decode(errors="replace").split()):
            return
        commands = [forget_terms_command(app, name), terms_command(job, terms)]
        async with store_errors("index a job"):
            await self._scripts.commit(name, job.version, "", self._clock.random_bytes(16).hex(), commands)

    async def _first_terms(self, job: Job, private: bytes) -> list[str]:
        opened = keyring_of(self._redis).open(job.app, job.id, PRIVATE, private)[1] if private else None
        metadata = (require_object(job.id, PRIVATE, opened) or {}).get("metadata")
        return first_terms(await self._secrets.get(DIGEST), job, metadata if isinstance(metadata, dict) else {})
