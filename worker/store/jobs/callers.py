"""Who waits for the answers to creates that an SDK may send again, so that a retry joins the job of what it repeats.

A caller is recorded in the step that creates its job (submit.lua). When its client goes without the answer, it is
marked as gone, and the next retry takes its place; it also takes that of one whose process has died.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from redis.asyncio import Redis

from worker.clock import Clock
from worker.jobs.errors import EarlierCallerWaits, StoreUnavailable
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.jobs.scripts import ALIVE_MS
from worker.store.jobs.stored_job import Caller

_RENEW_S: Final = 0.5
_STORE_RETRY_S: Final = 0.2
_LATE_CREATE_S: Final = (0.0, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses between looks for a job whose creation was given up: its packet may still be on the way."""


class Callers:
    """The callers of one API process. `run` must run in it."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self.process = clock.random_bytes(8).hex()
        self._join = script(redis, "jobs/callers", "jobs/join")
        self._leave = script(redis, "jobs/leave_place")
        self._renew = script(redis, "jobs/renew_process")
        self._made, self._open = 0, 0
        self._any = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()

    def begin(self, digest: str, window_seconds: float, *, retry: bool) -> Caller:
        """Return a caller for a request; call `release` once it waits no longer, after `end` if it had a job.

        `digest`: keyed, of all that makes two requests the same. `window_seconds`: how long after its end its SDK may
        send it again.
        """
        self._made += 1
        self._open += 1
        self._any.set()
        return Caller(digest, f"{self.process}:{self._made}", window_seconds, "retry" if retry else "first")

    async def join(self, app: str, caller: Caller) -> str | None:
        """Return the job in which a retry takes the place of an earlier caller that has gone, or None.

        For requests that can't be resolved again before that is known: what they continue may have changed since.
        Raises EarlierCallerWaits while one waits that may go.
        """
        if caller.turn == "first":
            return None
        async with store_errors("look for an earlier try"):
            names = [keys.callers(app, caller.digest), keys.API_PROCESSES]
            verdict, *rest = await self._join(keys=names, args=[caller.name, caller.turn])
        if verdict == b"OPEN":
            raise EarlierCallerWaits
        return str(rest[0].decode(errors="replace")) if rest else None

    async def end(self, app: str, caller: Caller, job_id: str, *, answered: bool) -> bool:
        """Record that the caller has its answer, or that it has gone without; return False if it had no job.

        `job_id` "": it is not known whether it has one. Raises StoreUnavailable.
        """
        window_ms = "" if answered else int(caller.window_seconds * 1000)
        async with store_errors("note that a caller has gone"):
            args = [job_id, caller.name, window_ms]
            return bool(await self._leave(keys=[keys.callers(app, caller.digest)], args=args))

    async def end_surely(self, app: str, caller: Caller, job_id: str, *, answered: bool) -> None:
        """As `end`, but try again while the store is away, for as long as the record is of use."""
        loop = asyncio.get_running_loop()
        last = loop.time() + caller.window_seconds
        while loop.time() < last:
            try:
                await self.end(app, caller, job_id, answered=answered)
            except StoreUnavailable:
                await asyncio.sleep(_STORE_RETRY_S)
            else:
                return

    def end_later(self, app: str, caller: Caller) -> None:
        """Record that the caller has gone, although Redis may create its job only after this call."""
        task = asyncio.create_task(self._end_unknown(app, caller), name="vigil-caller")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end_unknown(self, app: str, caller: Caller) -> None:
        for pause in _LATE_CREATE_S:
            await asyncio.sleep(pause)
            with contextlib.suppress(StoreUnavailable):
                if await self.end(app, caller, "", answered=False):
                    return

    def release(self) -> None:
        """Record that one caller less waits."""
        self._open -= 1
        if self._open <= 0:
            self._any.clear()

    async def run(self) -> None:
        """Say that this process lives while callers wait in it, until cancelled; then say that it has ended."""
        try:
            while True:
                await self._any.wait()
                with contextlib.suppress(StoreUnavailable):  # nobody can send a create to this store meanwhile
                    await self._say(ALIVE_MS)
                await asyncio.sleep(_RENEW_S)
        finally:
            for task in self._ending:
                task.cancel()
            if self._made:
                with contextlib.suppress(StoreUnavailable):
                    await self._say(0)

    async def _say(self, alive_ms: int) -> None:
        async with store_errors("say that this process lives"):
            await self._renew(keys=[keys.API_PROCESSES], args=[self.process, alive_ms])
