"""Keeps the archive and Redis in step: moves outputs there that should be there, deletes objects that no job refers to.

`vigil:objects` has a line for each object from before it is written until it is deleted, by when to check it. A check
deletes the object of a job that is over and refers to none, or to another; that of a job that is not over is looked at
again, for its worker may be about to commit. So an object that a job refers to is never deleted, whenever a process
stops, and one that nothing refers to is deleted once. Several workers may do all this at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import ArchiveUnavailable, ContentDamaged, KeyMissing
from worker.jobs.record import Job
from worker.store import codec, keys
from worker.store.connection import locks
from worker.store.connection.job_keys import ciphers_of
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets, output_digest
from worker.store.connection.lua_scripts import CONTENT_SIZE, script
from worker.store.envelope import OUTPUT
from worker.store.errors import store_errors
from worker.store.jobs.archived_output import HEAD_BYTES, ObjectEntry, entry_of, is_archived, place_of
from worker.store.jobs.output_archive import GRACE_MS, MOVE_S, OutputArchive
from worker.store.values import pipeline_replies, readable, valid_members
from worker.telemetry.events import emit

_PER_PAGE: Final = 100
_LOOK_AGAIN_MS: Final = 6 * 3_600_000
"""The longest time until an object is checked again: a job's retention may have been shortened."""
_REFUSED_AGAIN_MS: Final = 86_400_000
_RETRY_MS: Final = 60_000


class OutputObjects:
    """One deployment's outputs in the archive."""

    def __init__(self, redis: ArqRedis, clock: Clock, archive: OutputArchive) -> None:
        self._redis, self._clock, self._archive = redis, clock, archive
        self._secrets = KeptSecrets(redis, clock)
        self._release: Any = script(redis, "lifecycle/release_object")
        self._move: Any = script(redis, CONTENT_SIZE, "lifecycle/move_output")

    async def take_turn(self, seconds: float) -> bool:
        """Return True for one of all processes in so many seconds."""
        return await locks.try_lock(self._redis, keys.OBJECTS_LOCK, seconds)

    async def sweep(self) -> int:
        """Check a page of the objects that are due, and delete what can be; return how many were due."""
        due = await self._due(keys.OUTPUT_OBJECTS)
        lines = await valid_members(self._redis, keys.OUTPUT_OBJECTS, due, lambda line: entry_of(line) is not None)
        entries = [entry for line in lines if (entry := entry_of(line)) is not None]
        gone = [entry for entry in entries if entry.gone]
        gone += await self._released([entry for entry in entries if not entry.gone])
        for entry in gone:
            await self._delete(entry)
        return len(due)

    async def move(self) -> int:
        """Move a page of the outputs that should be in the archive; return how many were moved.

        Raises ArchiveUnavailable; the rest stays in Redis until the next time.
        """
        due = await self._due(keys.UNARCHIVED)
        moved = 0
        for job_id in await valid_members(self._redis, keys.UNARCHIVED, due, ids.is_job_id):
            try:
                moved += await self._moved(job_id)
            except ArchiveUnavailable:
                raise
            except (KeyMissing, ContentDamaged):
                await self._postpone(keys.UNARCHIVED, job_id, _LOOK_AGAIN_MS)
        return moved

    async def _due(self, key: str) -> list[bytes]:
        async with store_errors("look for objects of the archive", key):
            now = to_ms(self._clock.now())
            rows: list[bytes] = await self._redis.zrangebyscore(key, "-inf", now, start=0, num=_PER_PAGE)
        return rows

    async def _postpone(self, key: str, member: str, pause_ms: int) -> None:
        async with store_errors("check an object of the archive later", key):
            await self._redis.zadd(key, {member: to_ms(self._clock.now()) + pause_ms}, xx=True)

    async def _released(self, entries: list[ObjectEntry]) -> list[ObjectEntry]:
        """Return those that can be deleted, each noted as such; set when the others are checked again."""
        if not entries:
            return []
        async with store_errors("check objects of the archive"), self._redis.pipeline(transaction=True) as pipe:
            for entry in entries:
                pipe.hmget(keys.job(entry.job_id), "rec", "v")
                pipe.getrange(keys.job_output(entry.job_id), 0, HEAD_BYTES - 1)
                pipe.pttl(keys.job_output(entry.job_id))
            names = [name for one in entries for name in (keys.job(one.job_id), *[keys.job_output(one.job_id)] * 2)]
            replies = await pipeline_replies(pipe, names)
        released, later, now = list[ObjectEntry](), dict[str, int](), to_ms(self._clock.now())
        for entry, hash_, head, left in zip(entries, replies[::3], replies[1::3], replies[2::3], strict=True):
            place = place_of(head)
            if place is not None and place[0] == entry.name:
                pause = min(left + 1, _LOOK_AGAIN_MS) if left is not None and left >= 0 else _LOOK_AGAIN_MS
                later[entry.member] = now + pause
            elif hash_ is not None and (hash_ == [None, None] or _is_over(entry.job_id, hash_[0])):
                if await self._can_go(entry, hash_[1] or b""):
                    released.append(entry._replace(gone=True))
            else:  # its worker may be about to commit, or nobody can tell
                later[entry.member] = now + GRACE_MS
        if later:
            async with store_errors("check objects of the archive later", keys.OUTPUT_OBJECTS):
                await self._redis.zadd(keys.OUTPUT_OBJECTS, later, xx=True)
        return released

    async def _can_go(self, entry: ObjectEntry, version: bytes) -> bool:
        names = [keys.OUTPUT_OBJECTS, keys.job(entry.job_id), keys.job_output(entry.job_id)]
        head = b"6" + bytes.fromhex(entry.name)
        args = [entry.member, entry._replace(gone=True).member, version, head, to_ms(self._clock.now())]
        async with store_errors("release an object of the archive", keys.OUTPUT_OBJECTS):
            return bool(await self._release(keys=names, args=args))

    async def _delete(self, entry: ObjectEntry) -> None:
        try:
            await self._archive.delete(entry)
        except ArchiveUnavailable as error:
            pause = _REFUSED_AGAIN_MS if error.refused else _RETRY_MS
            await self._postpone(keys.OUTPUT_OBJECTS, entry.member, pause)
            return
        async with store_errors("forget an object of the archive", keys.OUTPUT_OBJECTS):
            await self._redis.zrem(keys.OUTPUT_OBJECTS, entry.member)
        emit("output.removed", job_id=entry.job_id)

    async def _moved(self, job_id: str) -> bool:
        """Move the output of a job; one that is not there, or may stay in Redis, is forgotten."""
        async with store_errors("read the output", keys.job_output(job_id)):
            raw = await self._redis.get(keys.job_output(job_id))
        cipher = (await ciphers_of(self._redis, [job_id])).get(job_id) if raw else None
        job = await self._job_over(job_id) if raw else None
        if raw is None or cipher is None or job is None or is_archived(raw) or not cipher.header:
            async with store_errors("forget what was to be moved", keys.UNARCHIVED):
                await self._redis.zrem(keys.UNARCHIVED, job_id)
            return False
        digest = output_digest(await self._secrets.get(DIGEST), cipher.unseal(OUTPUT, raw))
        entry, reference = await self._archive.write(self._redis, cipher, job_id, raw, digest, seconds=MOVE_S)
        names = [*_job_names(job_id), keys.OUTPUT_OBJECTS, keys.UNARCHIVED]
        names += [keys.content_sizes(job.app), keys.content_expiry(job.app)]
        args = [job_id, hashlib.sha1(raw, usedforsecurity=False).hexdigest(), entry.member, reference]
        async with store_errors("move an output", keys.job_output(job_id)):
            return bool(await self._move(keys=names, args=args))

    async def _job_over(self, job_id: str) -> Job | None:
        async with store_errors("read the job", keys.job(job_id)):
            record = await self._redis.hget(keys.job(job_id), "rec")
        found = [job for _, job in readable([(keys.job(job_id), record)], codec.load_job)]
        return found[0] if found and found[0].settled else None


def _is_over(job_id: str, record: bytes | None) -> bool:
    return any(job.settled for _, job in readable([(keys.job(job_id), record)], codec.load_job))


def _job_names(job_id: str) -> Iterable[str]:
    return keys.job(job_id), keys.job_input(job_id), keys.job_output(job_id)
