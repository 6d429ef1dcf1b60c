"""The worker process: connects to Redis, runs every component until told to stop, then drains.

`components.py` builds the components.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from arq.connections import ArqRedis

from worker import embedded
from worker.clock import Clock
from worker.components import WorkerComponents, WorkerParts
from worker.jobs.errors import StoreChanged, StoreRefused, StoreUnavailable, UnsafeStore
from worker.redis_address import parse
from worker.settings import Settings
from worker.store.connection.cluster_inspection import warn_of_cluster
from worker.store.connection.durability import check_durability
from worker.store.error_reasons import WRONG_USER
from worker.store.jobs.stored_job import ClaimedJob
from worker.store.partitions.identity import check_store_of
from worker.store.partitions.stores import PartitionStore, partitions_open
from worker.tasks.execution.inbox import Control
from worker.tasks.execution.job_run import JobRun
from worker.tasks.health_server import HealthServer
from worker.telemetry.events import emit, event_context
from worker.telemetry.internal_errors import report_internal_error
from worker.telemetry.metrics import REGISTRY
from worker.telemetry.setup import start_telemetry

_MAX_CONNECTIONS: Final = 32  # of each partition
_SETTLE_TIMEOUT_S: Final = 10.0  # for the last commits, after the time to drain


@asynccontextmanager
async def stores_of(settings: Settings) -> AsyncIterator[Sequence[PartitionStore]]:
    """Yield the store of each partition, home first, or an embedded server that runs as long as the block."""
    async with contextlib.AsyncExitStack() as stack:
        if settings.redis_url is None:
            server = await stack.enter_async_context(embedded.EmbeddedValkey(settings.data_dir))
            settings = settings.model_copy(update={"redis_url": server.url})
        yield await stack.enter_async_context(partitions_open(settings, max_connections=_MAX_CONNECTIONS))


def worker_name(clock: Clock) -> str:
    """Return a name that no worker has had before: host, process id, random bytes."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{clock.random_bytes(3).hex()}"


class WorkerProcess:
    """Runs all components of a worker, those of each partition, and every job that it claims."""

    def __init__(
        self,
        settings: Settings,
        redis: ArqRedis | None = None,
        clock: Clock | None = None,
        stores: Sequence[PartitionStore] = (),
    ) -> None:
        """Serve one store through `redis`, or several `stores`."""
        start_telemetry(settings)
        clock = clock or Clock()
        self.id = worker_name(clock)
        self._settings = settings
        self.parts = WorkerParts(settings, clock)
        served = stores if redis is None else [PartitionStore(settings, redis)]
        self.partitions = [
            WorkerComponents(one.settings, one.redis, clock, self.id, self._run, self._state, self.parts)
            for one in served
        ]
        self.runs: set[JobRun] = set()
        self.draining = False

    @property
    def components(self) -> WorkerComponents:
        """Return the components of home."""
        return self.partitions[0]

    def _state(self, of: WorkerComponents) -> dict[str, object]:
        names = {"accounts": [account.name for account in of.accounts.all], "circuits": of.accounts.scopes}
        return {"running": of.running, "draining": self.draining, "slots": self._settings.max_jobs, **names}

    async def _why_not_ready(self) -> str:
        """Return why no jobs are claimed now; "" if they are, be it of one partition."""
        if self.draining:
            return "draining"
        reasons = await asyncio.gather(*(one.store_watch.check() for one in self.partitions))
        if len(reasons) == 1 or not all(reasons):
            return "" if not all(reasons) else reasons[0]
        return "; ".join(f"{one.partition.name}: {why}" for one, why in zip(self.partitions, reasons, strict=True))

    def _not_served(self) -> str:
        """Return a line for each partition of which no jobs are claimed now."""
        away = [(one.partition.name, one.store_watch.reason) for one in self.partitions if one.store_watch.reason]
        return "".join(f"not of {name}: {reason}\n" for name, reason in away)

    async def _run(self, of: WorkerComponents, claimed: ClaimedJob) -> None:
        run = JobRun(of.context, claimed)
        self.runs.add(run)
        of.running += 1
        if self.draining:
            run.notify(Control.DRAIN)
        try:
            await run()
        finally:
            of.running -= 1
            self.runs.discard(run)

    async def serve(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Work until `stop` is set, then drain: hand over what can be resumed elsewhere, let short jobs finish.

        The health server answers until the very end, if the settings name a port.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self._settings.worker_port:
                health = HealthServer(self._why_not_ready, REGISTRY.text, self._not_served)
                await stack.enter_async_context(
                    health.listening(self._settings.worker_host, self._settings.worker_port)
                )
            await self._serve(stop, ready)

    async def _serve(self, stop: asyncio.Event, ready: asyncio.Event | None) -> None:
        await asyncio.gather(*(one.prepare() for one in self.partitions))
        tasks = [asyncio.create_task(self.parts.models_watch.run(), name="models-file")]
        subscribed = list[asyncio.Event]()
        for one in self.partitions:
            listening = asyncio.Event()
            with event_context(partition=one.partition.name if len(self.partitions) > 1 else ""):
                tasks += one.start(listening)
            if one.store_watch.answers:
                subscribed.append(listening)
        announcing = asyncio.create_task(_announce(subscribed, ready), name="ready")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        emit("worker.started", worker=self.id, slots=self._settings.max_jobs)
        failure: BaseException | None = None
        try:
            try:
                done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
                failure = _failure_of(done - {stopping})
            finally:  # whatever ends this worker, hand over what runs upstream while that is possible
                for one in self.partitions:
                    tasks += one.restarted_for_drain()
                await self._drain()
            if failure is not None:
                raise failure
        finally:
            runs = [task for one in self.partitions for task in one.claimer.running.values()]
            beside = [task for one in self.partitions for task in one.claimer.tasks.values()]
            left = [*tasks, announcing, stopping, *beside, *runs]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.gather(*(one.finish() for one in self.partitions))
            await self.parts.aclose()
            emit("worker.stopped", worker=self.id)

    async def _drain(self) -> None:
        self.draining = True
        for one in self.partitions:
            one.claimer.allow_pick_jobs = False
            one.cron.drain()
        emit("worker.draining", worker=self.id, count=len(self.runs))
        beats = (one.sweeper.beat() for one in self.partitions)
        await asyncio.gather(*beats, return_exceptions=True)  # one that fails is no reason to skip the hand-over
        for request, seconds in (
            (Control.DRAIN, self._settings.drain_seconds),
            (Control.INTERRUPT, _SETTLE_TIMEOUT_S),
        ):
            for run in list(self.runs):
                run.notify(request)
            tasks = [task for one in self.partitions for task in one.claimer.running.values()]
            if tasks:
                await asyncio.wait(tasks, timeout=seconds)


async def _announce(subscribed: Sequence[asyncio.Event], ready: asyncio.Event | None) -> None:
    """Set `ready` once the partitions that answer are listened to."""
    for one in subscribed:
        await one.wait()
    if ready is not None and subscribed:
        ready.set()


def _failure_of(tasks: set[asyncio.Task[Any]]) -> BaseException | None:
    """Report each component that ended by itself, which none should; return the first one's exception."""
    found: BaseException | None = None
    for task in tasks:
        error = RuntimeError(f"{task.get_name()} ended") if task.cancelled() else task.exception()
        error = error or RuntimeError(f"{task.get_name()} ended")
        if isinstance(error, Exception):
            report_internal_error("worker.broke", error, what=task.get_name())
        found = found or error
    return found


async def run_worker(
    settings: Settings, *, stop: asyncio.Event | None = None, ready: asyncio.Event | None = None
) -> None:
    """Run one worker until `stop` is set. Raises StoreUnavailable or UnsafeStore if it can't start."""
    async with stores_of(settings) as stores:
        checked = await asyncio.gather(*(_check(one) for one in stores), return_exceptions=True)
        failures = [one for one in checked if one is not None]
        away = [one for one in failures if isinstance(one, StoreUnavailable) and not isinstance(one, StoreRefused)]
        for failure in failures:
            if failure not in away or len(away) == len(stores):
                raise failure
        if not settings.encryption_keys:
            emit("encryption.off")
            if settings.archive is not None:
                emit("output.stays")
        elif settings.accept_unsealed:
            emit("encryption.unsealed_accepted")
        await WorkerProcess(settings, stores=stores).serve(stop or asyncio.Event(), ready)


async def _check(store: PartitionStore) -> None:
    """Raise UnsafeStore if this store may lose jobs or is another one, StoreUnavailable if it can't be asked."""
    settings, redis = store.settings, store.redis
    try:
        await check_durability(redis, allow_eviction=settings.allow_eviction)
        await check_store_of(redis, settings)
        await warn_of_cluster(redis, parse(settings.store_url))
    except StoreChanged:
        pass  # the worker stays up, not ready, and reports why, until its store is back
    except StoreRefused as error:
        if error.reason == WRONG_USER:
            raise  # a missing right is reported by the watch, and waited for
    except UnsafeStore as error:
        if len(settings.partitions) == 1:
            raise
        raise UnsafeStore(f"The store {store.partition.name}: {error}") from None
