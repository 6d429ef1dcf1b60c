"""Give records the MAC of the first master key: those with another key's, and on request those without one.

A record without a MAC is older than MACs, or somebody planted it; only an operator can say which (`vigil store seal`).
Each change is a compare-and-set of one value, so workers may run, and it may be stopped and started again at any time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final

from arq.connections import ArqRedis

from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.store import compression, keys
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.end_users.quarantine_rows import row_name
from worker.store.errors import store_errors
from worker.store.jobs.trail_rows import folded, unfolded
from worker.store.jobs.unreadable_records import event_name, read_job, read_unchecked, record_tag
from worker.store.record_mac import split

_BATCH: Final = 500
_TALLIES: Final = ("tagged", "under_first_key", "without_mac", "changed_meanwhile", "unreadable")


class RecordTags:
    """One pass over all records that carry a MAC. `counts`: how many were tagged, and why others were not."""

    def __init__(self, redis: ArqRedis, *, adopt: bool) -> None:
        """`adopt`: trust the records that have no MAC as they are now, and give them one."""
        self._redis, self._adopt, self._macs = redis, adopt, keyring_of(redis).macs
        self._swap: Any = script(redis, "lifecycle/compare_and_set")
        self.accepted: list[str] = []
        self.counts: Counter[str] = Counter(dict.fromkeys(_TALLIES, 0))

    async def run(self) -> Counter[str]:
        """Tag every record that needs it; return the counts."""
        for prefix in (keys.api_key(""), keys.app(""), keys.PAUSE):
            async for name in names_of(self._redis, prefix):
                await self._one(name, self._string(name))
        await self._one(keys.QUARANTINE, self._quarantine())
        async for name in names_of(self._redis, keys.JOB):
            await self._one(name, self._job(name.removeprefix(keys.JOB)))
        return self.counts

    async def _one(self, name: str, work: Awaitable[None]) -> None:
        """Await the work on one key; count a value that can't be read, so that it does not stop the others."""
        try:
            async with store_errors("tag records", name):
                await work
        except (RecordUnreadable, ContentDamaged, KeyMissing, ValueError, LookupError, TypeError, AttributeError):
            self.counts["unreadable"] += 1

    async def _string(self, key: str) -> None:
        raw = await self._redis.get(key)
        if raw is not None:
            await self._replace(key, "", raw, self._tagged(key, mac_name(key), raw))

    async def _quarantine(self) -> None:
        for end_user, raw in (await self._redis.hgetall(keys.QUARANTINE)).items():
            person = end_user.decode()
            await self._one(keys.QUARANTINE, self._row(person, raw))

    async def _row(self, end_user: str, raw: bytes) -> None:
        tagged = self._tagged(keys.QUARANTINE, row_name(end_user), raw)
        await self._replace(keys.QUARANTINE, end_user, raw, tagged)

    async def _job(self, job_id: str) -> None:
        key = keys.job(job_id)
        raw, tag = await self._redis.hmget(key, "rec", "mac")
        if raw is None:
            return
        try:
            version = read_job(self._macs, job_id, raw, tag).version
            fresh = self._macs.needs_tag((tag or b"").partition(b" ")[2])
        except RecordUnreadable as error:
            if error.why != "no_mac":
                raise
            if not self._adopt:
                self.counts["without_mac"] += 1
                return
            version, fresh = read_unchecked(job_id, raw).version, True
        if fresh:
            await self._replace(key, "mac", tag or b"", record_tag(self._macs, job_id, version, raw))
        else:
            self.counts["under_first_key"] += 1
        await self._events(job_id)

    async def _events(self, job_id: str) -> None:
        """Tag a job's events in place: the list is only ever appended to, or folded."""
        key = keys.trail(job_id)
        for number, raw in enumerate(await self._redis.lrange(key, 0, -1)):
            rows = unfolded([raw])
            tagged = [self._tagged_event(job_id, row) for row in rows]
            if tagged == rows:
                continue
            after = folded(tagged) if compression.is_compressed(raw) else tagged[0]
            if await self._redis.lindex(key, number) == raw:
                await self._redis.lset(key, number, after)

    def _tagged_event(self, job_id: str, row: bytes) -> bytes:
        """Return the event with a tag of the first key; as it is if it has one, or must not get one."""
        try:
            return self._tagged(keys.trail(job_id), event_name(job_id), row, quiet=True) or row
        except RecordUnreadable:
            self.counts["unreadable"] += 1
            return row

    def _tagged(self, key: str, name: str, raw: bytes, *, quiet: bool = False) -> bytes | None:
        """Return the record with a tag of the first key, or None if it has one, or must not get one; count which."""
        content, tag = split(raw)
        if tag is None and not self._adopt:
            self.counts["without_mac"] += 1
            return None
        if tag is not None:
            self._macs.check(key, name, content, tag)
            if not self._macs.needs_tag(tag):
                self.counts["under_first_key"] += not quiet
                return None
        return self._macs.attach(name, content)

    async def _replace(self, key: str, field: str, before: bytes, after: bytes | None) -> None:
        if after is None:
            return
        if before == b"" and field:
            done = await self._redis.hsetnx(key, field, after)
        else:
            done = await self._swap(keys=[key], args=[field, before, after])
        self.counts["tagged" if done else "changed_meanwhile"] += 1
        if done and field != "mac" and split(before)[1] is None:
            self.accepted.append(_described(key, field, before))


def mac_name(key: str) -> str:
    """Return the name under which the JSON value of this key has its MAC."""
    return key.removeprefix(keys.PAUSE) if key.startswith(keys.PAUSE) else key


def _described(key: str, field: str, raw: bytes) -> str:
    """Return what an operator knows a record by: an API key by its id and app, others by their key."""
    if key.startswith(keys.api_key("")):
        body = json.loads(raw)
        return f"API key {body['id']} of app {body['app']}"
    return f"{key} {field}".rstrip()


async def names_of(redis: ArqRedis, prefix: str) -> AsyncIterator[str]:
    """Yield the names of the keys with this prefix."""
    async with store_errors("list keys"):
        async for name in redis.scan_iter(match=prefix + "*", count=_BATCH):
            yield name.decode(errors="replace")
