"""Lets a process speak only to the store that it knows: each new connection is asked first, and once a second the rest.

A store that isn't the known one is no store: every command fails with StoreChanged, so nothing is accepted, claimed or
shown from it, and commits wait for the right one to come back. A restart ends every connection, so nothing slips in
between. Must not know: what a job is, who is told.
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
from worker.jobs.errors import StoreUnavailable
from worker.store import keys
from worker.store.connection.errors import StoreChangedError, store_errors
from worker.store.connection.store_mark import Reason, StoreAnswer, StoreMark, describe, judge, load, save
from worker.store.values import count_of
from worker.telemetry.events import emit

CHECK_INTERVAL_S: Final = 1.0
_CHECKS_PER_SAVE: Final = 5  # looks
_ACCEPTED_TTL_S: Final = 86_400


class StoreGuard:
    """Knows the store by its mark; `path` is where that is kept, None for a process that keeps none."""

    def __init__(self, path: Path | None, dice: Callable[[int], bytes]) -> None:
        self._path, self._dice = path, dice
        self._mark: StoreMark | None = None
        self._saved: StoreMark | None = None
        self._unwritable = False
        self.fault = ""
        self.epoch = 0
        if path is not None:
            with contextlib.suppress(OSError):  # told when it can't be written either
                self._mark = self._saved = load(path)

    @property
    def mark(self) -> StoreMark | None:
        """What is known of the store; None before it was first seen."""
        return self._mark

    async def check_connection(self, connection: Any) -> None:
        """Returns when the server behind this new connection holds the known store; raises Changed when it doesn't."""

        async def ask(*words: Any) -> Any:
            await connection.send_command(*words, check_health=False)
            return await connection.read_response()

        if self._mark is None:
            await _or_none(ask("SET", keys.DEPLOYMENT, self._dice(8).hex(), "NX"))  # full or read-only: later
        await self._check(ask)

    async def _check(self, ask: Callable[..., Any]) -> None:
        mark = self._mark  # what is seen is held against this one: other connections may move it on meanwhile
        seen = await read_answer(ask, mark)
        reason = judge(mark, seen)
        if mark is not None and reason is not None:
            self._refuse(reason, describe(reason, mark, seen))
        if self.fault:
            self.fault = ""
            emit("store.known")
        if seen.deployment is not None and self._mark is mark and (mark is None or mark.deployment != seen.deployment):
            self._mark = StoreMark(seen.deployment)
        if seen.deployment is None and mark is not None:
            await _or_none(ask("SET", keys.DEPLOYMENT, mark.deployment))

    def _refuse(self, reason: Reason, said: str) -> None:
        if said != self.fault:
            self.fault = said
            emit("store.changed", reason=reason)
        raise StoreChangedError(said)

    async def run(self, redis: ArqRedis) -> None:
        """Looks once a second, until cancelled, and keeps the mark's file."""
        looks = 0
        try:
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await self.check(redis)
                if looks % _CHECKS_PER_SAVE == 0:
                    await asyncio.to_thread(self._save)
                looks += 1
                await asyncio.sleep(CHECK_INTERVAL_S)
        finally:
            self._save(".last")

    async def check(self, redis: ArqRedis) -> None:
        """The mark is the newest there is; StoreChanged when this isn't the known store any more."""
        async with store_errors("say which deployment it holds"):
            try:
                await self._check(redis.execute_command)
            except StoreChangedError:
                self.epoch += 1
                raise
            mark = self._mark
            newest = await _or_none(redis.xrevrange(keys.AUDIT, count=1))
            looks = await _or_none(redis.incr(keys.CHECK_COUNT))
        if mark is not None and self._mark is mark and not self.fault:
            record = _text(newest[0][0]) if newest else mark.record
            self._mark = StoreMark(mark.deployment, record or "", looks or mark.looks)

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


async def read_answer(ask: Callable[..., Any], mark: StoreMark | None) -> StoreAnswer:
    """What the store says of itself, held against the mark."""
    deployment = _text(await _or_none(ask("GET", keys.DEPLOYMENT)))
    if mark is None:
        return StoreAnswer(deployment, has_all=True)
    if deployment is not None and deployment != mark.deployment:
        return StoreAnswer(deployment, has_all=False, accepted=_text(await _or_none(ask("GET", keys.ACCEPTED))))
    return StoreAnswer(deployment, has_all=await _has(ask, mark, deployment is not None))


async def _has(ask: Callable[..., Any], mark: StoreMark, named: bool) -> bool:
    """Whether the marked record is there, or retention has removed it; where there is no trail the looks have to do."""
    if mark.record:
        if await _or_none(ask("XRANGE", keys.AUDIT, mark.record, mark.record)):
            return True
        if _text(await _or_none(ask("TYPE", keys.AUDIT))) == "stream":
            return await _removed(ask, mark.record)
    looks = count_of(_text(await _or_none(ask("GET", keys.CHECK_COUNT))))
    if not mark.looks:
        return named  # nothing but the id was known
    return looks is not None and looks >= mark.looks


async def _removed(ask: Callable[..., Any], record: str) -> bool:
    line = await _or_none(ask("GET", keys.RETENTION_SEAL))
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return stream_id(record) <= stream_id(str(json.loads(line)["upto"]))
    return False


async def _or_none(answer: Awaitable[Any]) -> Any:
    """The answer; None where the command can't be done on what is there (its type is wrong, no room, no right)."""
    try:
        return await answer
    except ResponseError:
        return None


async def accept(redis: ArqRedis, deployment: str) -> None:
    """From now on this is the store: it gets a new id, which every process takes over that knew another, for a day."""
    async with store_errors("take a new deployment id"), redis.pipeline(transaction=True) as pipe:
        pipe.set(keys.DEPLOYMENT, deployment)
        pipe.set(keys.ACCEPTED, deployment, ex=_ACCEPTED_TTL_S)
        await pipe.execute()


def guard_of(redis: ArqRedis) -> StoreGuard | None:
    """The guard that this client was connected with."""
    guard: StoreGuard | None = vars(redis).get("guard")
    return guard


def _text(answer: Any) -> str | None:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer
