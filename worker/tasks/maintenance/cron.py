"""Small tasks beside the jobs, by stock arq on its own queue: what cron starts, and what the API requests.

This is a second arq worker in the process, with nothing overridden and slots of its own, so that no task takes the slot
of a job. arq keeps a cron run unique among all workers by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import arq.worker
from arq.connections import ArqRedis
from arq.constants import default_queue_name, in_progress_key_prefix, job_key_prefix, retry_key_prefix
from arq.cron import CronJob, cron
from redis.exceptions import ResponseError

from worker.jobs.errors import RecordUnreadable, StoreUnavailable
from worker.store.admission.model_access import PROBE_FUNCTION
from worker.store.errors import UNAVAILABLE_ERRORS, is_wrong_type, store_errors
from worker.store.provider.relayed_requests import RELAY_FUNCTION
from worker.store.values import report_unreadable
from worker.telemetry.events import emit

_SLOTS: Final = 16
_POLL_S: Final = 0.5
_RESTART_S: Final = 1.0
_STEADY_S: Final = 30.0  # after such a time a loss of Redis is another one
_TIMEOUT_S: Final = 60
_KEEP_RESULT_S: Final = 30
RELAY_SECONDS: Final = 300.0
"""The longest that a relayed request may take."""

_MAX_CHECKED: Final = 1_000
_TASK_KEY_PREFIXES: Final = tuple(name.encode() for name in (job_key_prefix, retry_key_prefix, in_progress_key_prefix))
"""Prefixes of the keys that arq has for one task."""

Probe = Callable[[], Awaitable[None]]
TakeTurn = Callable[[float], Awaitable[bool]]
Relay = Callable[[str, float], Awaitable[bool]]


def every(seconds: int) -> dict[str, set[int]]:
    """Return arq's cron fields for a period that divides a minute or, in whole minutes, an hour."""
    if seconds < 60:  # noqa: PLR2004  a minute
        return {"second": set(range(0, 60, seconds))}
    return {"minute": set(range(0, 60, seconds // 60)), "second": {0}}


class CronWorker:
    """Probes all models: every `seconds` and at the start (0 = never), and on request. Relays requests of apps."""

    def __init__(
        self,
        redis: ArqRedis,
        probe_all: Probe,
        take_turn: TakeTurn,
        seconds: int,
        on_request: Probe | None = None,
        relay: Relay | None = None,
    ) -> None:
        """Build the worker; `on_request` is what a request runs, if that is more than `probe_all`."""
        self._on_request, self._relay = on_request or probe_all, relay
        self._redis, self._probe_all, self._take_turn, self._seconds = redis, probe_all, take_turn, seconds
        self._draining = False
        self.worker = self._build()

    def _build(self) -> arq.worker.Worker:
        async def probe_by_cron(ctx: dict[str, Any]) -> None:  # noqa: ARG001  arq gives it
            # every worker probes at its start; half a period keeps a fleet that starts from probing once each
            with contextlib.suppress(StoreUnavailable):
                if await self._take_turn(self._seconds / 2):
                    await self._probe_all()

        async def probe_on_request(ctx: dict[str, Any]) -> bool:  # noqa: ARG001
            try:
                await self._on_request()
            except StoreUnavailable:
                return False
            return True

        async def relay_request(ctx: dict[str, Any], name: str) -> bool:  # noqa: ARG001
            return self._relay is not None and await self._relay(name, RELAY_SECONDS)

        requested = arq.worker.func(
            probe_on_request, name=PROBE_FUNCTION, timeout=_TIMEOUT_S, keep_result=_KEEP_RESULT_S
        )
        relayed = arq.worker.func(
            relay_request,
            name=RELAY_FUNCTION,
            timeout=RELAY_SECONDS + _TIMEOUT_S,
            keep_result=_KEEP_RESULT_S,
            max_tries=1,  # it may cost something
        )
        cron_jobs: list[CronJob] = []
        if self._seconds:
            # mypy sees a union where arq means one of its members
            cron_jobs.append(cron(probe_by_cron, name="cron:probe", run_at_startup=True, **every(self._seconds)))  # type: ignore[arg-type]
        return arq.worker.Worker(
            functions=[requested, relayed],
            cron_jobs=cron_jobs,
            redis_pool=self._redis,
            handle_signals=False,
            max_jobs=_SLOTS,
            poll_delay=_POLL_S,
            job_timeout=_TIMEOUT_S,
            log_results=False,
            job_serializer=self._redis.job_serializer,
            job_deserializer=json.loads,
        )

    def drain(self) -> None:
        """Start no more tasks."""
        self._draining = True
        self.worker.allow_pick_jobs = False

    async def run(self) -> None:
        """Run until cancelled, through every loss of Redis."""
        reported = False
        while True:
            began = time.monotonic()
            try:
                await self.worker.main()
            except (*UNAVAILABLE_ERRORS, UnicodeDecodeError) as error:
                if not reported or time.monotonic() - began > _STEADY_S:  # once while it stays away
                    emit("errands.away", error=type(error).__name__)
                reported = True
                if isinstance(error, UnicodeDecodeError) or (isinstance(error, ResponseError) and is_wrong_type(error)):
                    await self._repair_queue()
            finally:
                await self._cancel_tasks()
            await asyncio.sleep(_RESTART_S)
            self.worker = self._build()  # a lost connection may have left a slot taken
            self.worker.allow_pick_jobs = not self._draining

    async def _repair_queue(self) -> None:
        """Remove tasks that can't be read from arq's queue: they would stop arq again and again.

        If the queue itself can't be read, it is deleted: every task is started by cron or requested again.
        """
        report_unreadable(RecordUnreadable(default_queue_name, "wrong_shape"))
        with contextlib.suppress(StoreUnavailable, RecordUnreadable):
            async with store_errors("repair the queue of arq", default_queue_name):
                bad = await self._unreadable()
                if bad:
                    await self._redis.zrem(default_queue_name, *bad)
                    await self._redis.delete(*(prefix + one for one in bad for prefix in _TASK_KEY_PREFIXES))
                else:
                    await self._redis.delete(default_queue_name)

    async def _unreadable(self) -> list[bytes]:
        """Return the ids of tasks that are not text, or for which arq's own keys have another type."""
        if await self._redis.type(default_queue_name) != b"zset":
            return []
        ids: list[bytes] = await self._redis.zrange(default_queue_name, 0, _MAX_CHECKED - 1)
        async with self._redis.pipeline(transaction=False) as pipe:
            for one in ids:
                for prefix in _TASK_KEY_PREFIXES:
                    pipe.type(prefix + one)
            types = await pipe.execute()
        return [
            one
            for number, one in enumerate(ids)
            if not _is_text(one)
            or set(types[number * len(_TASK_KEY_PREFIXES) :][: len(_TASK_KEY_PREFIXES)]) - {b"string", b"none"}
        ]

    async def _cancel_tasks(self) -> None:
        tasks = list(self.worker.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
