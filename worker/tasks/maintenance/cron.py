"""Small work beside the jobs, by stock arq on its own queue: what comes round by cron, and what the API asks for.

A second arq worker of this process, with nothing overridden and slots of its own, so that no errand takes a job's.
arq keeps a cron run unique among all workers by its id. Must not know: jobs, what an errand does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
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
from worker.store.values import report_unreadable
from worker.telemetry.events import emit

_SLOTS: Final = 4
_POLL: Final = 0.5
_AGAIN: Final = 1.0
_SECONDS: Final = 60
_KEEP_ANSWER: Final = 30

_MOST_LOOKED_AT: Final = 1_000
_OF_ONE: Final = tuple(name.encode() for name in (job_key_prefix, retry_key_prefix, in_progress_key_prefix))
"""What the names of the keys begin with that arq has of one errand."""

Probe = Callable[[], Awaitable[None]]
Turn = Callable[[float], Awaitable[bool]]


def every(seconds: int) -> dict[str, set[int]]:
    """The calendar that arq's cron takes, for a period that divides a minute or, in whole minutes, an hour."""
    if seconds < _SECONDS:
        return {"second": set(range(0, _SECONDS, seconds))}
    return {"minute": set(range(0, 60, seconds // 60)), "second": {0}}


class CronWorker:
    """Probes of all models: every `seconds` and at the start (0 = never), and whenever somebody asks."""

    def __init__(
        self, redis: ArqRedis, probe_all: Probe, take_turn: Turn, seconds: int, on_request: Probe | None = None
    ) -> None:
        """`on_request` is what is done when somebody asks, if that is more than `probe_all`."""
        self._on_request = on_request or probe_all
        self._redis, self._probe_all, self._take_turn, self._seconds = redis, probe_all, take_turn, seconds
        self._draining = False
        self.worker = self._build()

    def _build(self) -> arq.worker.Worker:
        async def probe_by_cron(ctx: dict[str, Any]) -> None:  # noqa: ARG001  arq gives it
            # each worker's start is an occasion; half a period keeps a fleet that starts from asking once each
            with contextlib.suppress(StoreUnavailable):
                if await self._take_turn(self._seconds / 2):
                    await self._probe_all()

        async def probe_on_request(ctx: dict[str, Any]) -> bool:  # noqa: ARG001
            try:
                await self._on_request()
            except StoreUnavailable:
                return False
            return True

        asked = arq.worker.func(probe_on_request, name=PROBE_FUNCTION, timeout=_SECONDS, keep_result=_KEEP_ANSWER)
        rounds: list[CronJob] = []
        if self._seconds:
            # mypy sees a union where arq means one of its members
            rounds.append(cron(probe_by_cron, name="cron:probe", run_at_startup=True, **every(self._seconds)))  # type: ignore[arg-type]
        return arq.worker.Worker(
            functions=[asked],
            cron_jobs=rounds,
            redis_pool=self._redis,
            handle_signals=False,
            max_jobs=_SLOTS,
            poll_delay=_POLL,
            job_timeout=_SECONDS,
            log_results=False,
            job_serializer=self._redis.job_serializer,
            job_deserializer=json.loads,
        )

    def drain(self) -> None:
        """Begins nothing more."""
        self._draining = True
        self.worker.allow_pick_jobs = False

    async def run(self) -> None:
        """Works until cancelled, through every loss of Redis."""
        while True:
            try:
                await self.worker.main()
            except (*UNAVAILABLE_ERRORS, UnicodeDecodeError) as error:
                emit("errands.away", error=type(error).__name__)
                if isinstance(error, UnicodeDecodeError) or (isinstance(error, ResponseError) and is_wrong_type(error)):
                    await self._afresh()
            finally:
                await self._end()
            await asyncio.sleep(_AGAIN)
            self.worker = self._build()  # a lost connection may have left a slot taken
            self.worker.allow_pick_jobs = not self._draining

    async def _afresh(self) -> None:
        """What can't be read would stop arq again and again: such errands are taken out of the queue. Where it is the
        queue itself, it begins anew: every errand comes round, or is asked for again.
        """
        report_unreadable(RecordUnreadable(default_queue_name, "wrong_shape"))
        with contextlib.suppress(StoreUnavailable, RecordUnreadable):
            async with store_errors("mend the queue of errands", default_queue_name):
                bad = await self._unreadable()
                if bad:
                    await self._redis.zrem(default_queue_name, *bad)
                    await self._redis.delete(*(prefix + one for one in bad for prefix in _OF_ONE))
                else:
                    await self._redis.delete(default_queue_name)

    async def _unreadable(self) -> list[bytes]:
        """Ids of errands that are no text, or of which arq's own keys are of another type."""
        if await self._redis.type(default_queue_name) != b"zset":
            return []
        ids: list[bytes] = await self._redis.zrange(default_queue_name, 0, _MOST_LOOKED_AT - 1)
        async with self._redis.pipeline(transaction=False) as pipe:
            for one in ids:
                for prefix in _OF_ONE:
                    pipe.type(prefix + one)
            types = await pipe.execute()
        return [
            one
            for number, one in enumerate(ids)
            if not _is_text(one) or set(types[number * len(_OF_ONE) :][: len(_OF_ONE)]) - {b"string", b"none"}
        ]

    async def _end(self) -> None:
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
