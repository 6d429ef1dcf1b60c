"""Refuse a Redis that does not hold the store this process knows; check each new connection, and all once a second.

While another store is there every command fails with StoreChanged: nothing is accepted, claimed or shown from it, and
commits wait for the known one to come back. A restart ends every connection, so no command reaches a changed store
unchecked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from arq.connections import ArqRedis
from redis.exceptions import ResponseError

from worker.audit.chain import stream_id
from worker.jobs.errors import RecordUnreadable, StoreUnavailable
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.connection.store_mark import Reason, StoreAnswer, StoreMark, describe, judge, load, save
from worker.store.errors import StoreChangedError, is_wrong_type, store_errors
from worker.store.values import count_of, report_unreadable
from worker.telemetry.events import emit

CHECK_INTERVAL_S: Final = 1.0
_CHECKS_PER_SAVE: Final = 5
_ACCEPTED_TTL_S: Final = 86_400


class StoreGuard:
    """Compares the store with a mark; `path` is the mark's file, None for a process that keeps none."""

    def __init__(self, path: Path | None, random_bytes: Callable[[int], bytes]) -> None:
        self._path, self._random_bytes = path, random_bytes
        self._mark: StoreMark | None = None
        self._saved: StoreMark | None = None
        self._unwritable = False
        self.fault = ""
        self.epoch = 0
        if path is not None:
            with contextlib.suppress(OSError):  # reported when it can't be written either
                self._mark = self._saved = load(path)

    @property
    def mark(self) -> StoreMark | None:
        """What is known of the store; None before the first connection."""
        return self._mark

    async def check_connection(self, connection: Any) -> None:
        """Return when this new connection leads to the known store. Raises StoreChangedError for another one."""

        async def execute(*args: Any) -> Any:
            await connection.send_command(*args, check_health=False)
            return await connection.read_response()

        if self._mark is None:
            # fails if Redis is full or read-only: tried again later
            await _or_none(execute("SET", keys.DEPLOYMENT, self._random_bytes(8).hex(), "NX"))
        await self._check(execute)

    async def _check(self, execute: Callable[..., Any]) -> None:
        mark = self._mark  # compare with this one: other connections may replace it meanwhile
        answer = await read_answer(execute, mark)
        reason = judge(mark, answer)
        if mark is not None and reason is not None:
            self._refuse(reason, describe(reason, mark, answer))
        if self.fault:
            self.fault = ""
            emit("store.known")
        if answer.deployment is None:
            if mark is not None:
                await _or_none(execute("SET", keys.DEPLOYMENT, mark.deployment))
        elif self._mark is mark and (mark is None or mark.deployment != answer.deployment):
            self._mark = StoreMark(answer.deployment)

    def _refuse(self, reason: Reason, fault: str) -> None:
        if fault != self.fault:
            self.fault = fault
            emit("store.changed", reason=reason)
        raise StoreChangedError(fault)

    async def run(self, redis: ArqRedis) -> None:
        """Check once a second until cancelled, and save the mark now and then."""
        checks = 0
        try:
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await self.check(redis)
                if checks % _CHECKS_PER_SAVE == 0:
                    await asyncio.to_thread(self._save)
                checks += 1
                await asyncio.sleep(CHECK_INTERVAL_S)
        finally:
            self._save(".last")

    async def check(self, redis: ArqRedis) -> None:
        """Check the store and bring the mark up to date. Raises StoreChanged when it is no longer the known store."""
        async with store_errors("say which deployment it holds"):
            try:
                await self._check(redis.execute_command)
            except StoreChangedError:
                self.epoch += 1
                raise
            mark = self._mark
            newest = await self._newest_record(redis)
            looks = await _or_none(redis.incr(keys.CHECK_COUNT))
        if mark is not None and self._mark is mark and not self.fault:
            record = _text(newest[0][0]) if newest else mark.record
            self._mark = StoreMark(mark.deployment, record or "", looks or mark.looks)

    async def _newest_record(self, redis: ArqRedis) -> Any:
        """Read the newest audit record. Report a key of another type, and set it aside if this user may.

        Every change of a job adds a record, so all would wait for the next repair of the queues.
        """
        try:
            return await redis.xrevrange(keys.AUDIT, count=1)
        except ResponseError as error:
            if is_wrong_type(error):
                report_unreadable(RecordUnreadable(keys.AUDIT, "wrong_type"))
                await _or_none(script(redis, "lifecycle/check_types")(keys=[keys.AUDIT], args=["stream"]))
            return None

    def _save(self, by: str = "") -> None:
        if self._path is None or self._mark is None or self._mark == self._saved or self.fault:
            return
        try:
            save(self._path, self._mark, by)
        except OSError as error:
            if not self._unwritable:
                emit("store.unmarked", error=type(error).__name__)
            self._unwritable = True
        else:
            self._saved, self._unwritable = self._mark, False


async def read_answer(execute: Callable[..., Any], mark: StoreMark | None) -> StoreAnswer:
    """Read what the store says of itself, and compare it with the mark."""
    deployment = _text(await _or_none(execute("GET", keys.DEPLOYMENT)))
    if mark is None:
        return StoreAnswer(deployment, has_all=True)
    if deployment is not None and deployment != mark.deployment:
        return StoreAnswer(deployment, has_all=False, accepted=_text(await _or_none(execute("GET", keys.ACCEPTED))))
    return StoreAnswer(deployment, has_all=await _has_marked(execute, mark, deployment is not None))


async def _has_marked(execute: Callable[..., Any], mark: StoreMark, named: bool) -> bool:
    """Return whether the marked record exists, or retention removed it, or it left for the archive.

    Without a trail, or when Vigil itself has set the trail aside since that record, the counter decides.
    """
    if mark.record:
        if await _or_none(execute("XRANGE", keys.AUDIT, mark.record, mark.record)):
            return True
        if _text(await _or_none(execute("TYPE", keys.AUDIT))) == "stream" and not await _aside(execute, mark.record):
            return await _removed(execute, mark.record)
    looks = count_of(_text(await _or_none(execute("GET", keys.CHECK_COUNT))))
    if not mark.looks:
        return named  # nothing but the id was known
    return looks is not None and looks >= mark.looks


async def _aside(execute: Callable[..., Any], record: str) -> bool:
    """Return whether the trail was set aside after this record: an older store does not know of that."""
    at = _text(await _or_none(execute("ZSCORE", keys.ASIDES, keys.AUDIT)))
    return at is not None and float(at) >= stream_id(record)[0]


async def _removed(execute: Callable[..., Any], record: str) -> bool:
    for name, field in ((keys.RETENTION_SEAL, "upto"), (keys.ARCHIVE, "trimmed")):
        line = await _or_none(execute("GET", name))
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if stream_id(record) <= stream_id(str(json.loads(line)[field])):
                return True
    return False


async def _or_none(answer: Awaitable[Any]) -> Any:
    """Return the reply, or None where the command fails on this store (wrong type, no memory, no permission)."""
    try:
        return await answer
    except ResponseError:
        return None


async def accept(redis: ArqRedis, deployment: str) -> None:
    """Accept this store: give it a new id, which every process that knew another one takes over within a day."""
    async with store_errors("take a new deployment id"), redis.pipeline(transaction=True) as pipe:
        pipe.set(keys.DEPLOYMENT, deployment)
        pipe.set(keys.ACCEPTED, deployment, ex=_ACCEPTED_TTL_S)
        await pipe.execute()


def guard_of(redis: ArqRedis) -> StoreGuard | None:
    """Return the guard that this client was connected with."""
    guard: StoreGuard | None = vars(redis).get("guard")
    return guard


def _text(answer: Any) -> str | None:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer
