"""The worker process: connects to Redis, runs every component until told to stop, then drains.

`components.py` builds the components.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from arq.connections import ArqRedis

from worker import embedded
from worker.clock import Clock
from worker.components import WorkerComponents
from worker.jobs.errors import StoreChanged, StoreRefused, StoreUnavailable
from worker.settings import Settings
from worker.store.archive.attached import attach_archive
from worker.store.connection.durability import check_durability
from worker.store.connection.pool import connect, keyring_from
from worker.store.connection.replay_check import check_replay
from worker.store.connection.store_guard import StoreGuard, guard_of
from worker.store.error_reasons import WRONG_USER
from worker.store.jobs.stored_job import ClaimedJob
from worker.tasks.execution.inbox import Control
from worker.tasks.execution.job_run import JobRun
from worker.tasks.health_server import HealthServer
from worker.tasks.loop import loop_pass
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import report_internal_error
from worker.telemetry.metrics import REGISTRY
from worker.telemetry.setup import start_telemetry

_SETTLE_TIMEOUT_S: Final = 10.0  # for the last commits, after the time to drain


@asynccontextmanager
async def redis_of(settings: Settings) -> AsyncIterator[ArqRedis]:
    """Yield a client of the Redis of the settings, or of an embedded server that runs as long as the block."""
    async with contextlib.AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            url = (await stack.enter_async_context(embedded.EmbeddedValkey(settings.data_dir))).url
        given = settings.model_copy(update={"redis_url": url})
        guard = StoreGuard(given.mark_file, Clock().random_bytes)
        redis = connect(url, keyring=keyring_from(settings), guard=guard, compact=settings.compact_records)
        attach_archive(redis, settings)
        stack.push_async_callback(redis.aclose)
        yield redis


def worker_name(clock: Clock) -> str:
    """Return a name that no worker has had before: host, process id, random bytes."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{clock.random_bytes(3).hex()}"


class WorkerProcess:
    """Runs all components of a worker, and every job that it claims."""

    def __init__(self, settings: Settings, redis: ArqRedis, clock: Clock | None = None) -> None:
        start_telemetry(settings)
        clock = clock or Clock()
        self.id = worker_name(clock)
        self._settings, self._redis = settings, redis
        self.components = WorkerComponents(settings, redis, clock, self.id, self._run, self._state)
        self.runs: set[JobRun] = set()
        self.draining = False

    def _state(self) -> dict[str, object]:
        accounts = self.components.accounts
        names = {"accounts": [account.name for account in accounts.all], "circuits": accounts.scopes}
        return {"running": len(self.runs), "draining": self.draining, "slots": self._settings.max_jobs, **names}

    async def _why_not_ready(self) -> str:
        """Return why no jobs are claimed now; "" if they are."""
        if self.draining:
            return "draining"
        return await self.components.store_watch.check()

    async def _run(self, claimed: ClaimedJob) -> None:
        run = JobRun(self.components.context, claimed)
        self.runs.add(run)
        if self.draining:
            run.notify(Control.DRAIN)
        try:
            await run()
        finally:
            self.runs.discard(run)

    async def serve(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Work until `stop` is set, then drain: hand over what can be resumed elsewhere, let short jobs finish.

        The health server answers until the very end, if the settings name a port.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self._settings.worker_port:
                health = HealthServer(self._why_not_ready, REGISTRY.text)
                await stack.enter_async_context(
                    health.listening(self._settings.worker_host, self._settings.worker_port)
                )
            await self._serve(stop, ready)

    async def _serve(self, stop: asyncio.Event, ready: asyncio.Event | None) -> None:
        components = self.components
        await components.store_watch.check()  # what Redis lacks is reported first
        await components.clock.refresh()
        with contextlib.suppress(StoreUnavailable), loop_pass("access"):
            await components.accounts.refresh()  # denied models are known before the first job
        guard = guard_of(self._redis)
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("store", components.store_watch.run()),
                ("clock", components.clock.run()),
                ("leases", components.context.leases.run()),
                ("flusher", components.context.flusher.run()),
                ("notifier", components.notifier.run(ready)),
                ("sweeper", components.sweeper.run()),
                ("access", components.accounts.run()),
                ("cron", components.cron.run()),
                ("notices", components.notice_processor.run()),
                ("account-monitor", components.account_monitor.run()),
                ("models-file", components.models_watch.run()),
                ("delivery", components.dispatcher.run()),
                ("sealer", components.audit_sealer.run()),
                ("migrator", components.migrator.run()),
                ("archiver", components.audit_archiver.run()),
                ("incidents", components.incident_reporter.run()),
                *((("store-guard", guard.run(self._redis)),) if guard else ()),
            )
        ]
        claiming = asyncio.create_task(components.claimer.main(), name="claiming")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        emit("worker.started", worker=self.id, slots=self._settings.max_jobs)
        failure: BaseException | None = None
        try:
            try:
                done, _ = await asyncio.wait([*tasks, claiming, stopping], return_when=asyncio.FIRST_COMPLETED)
                failure = _failure_of(done - {stopping})
            finally:  # whatever ends this worker, hand over what runs upstream while that is possible
                tasks += self._restarted_for_drain(tasks)
                await self._drain()
            if failure is not None:
                raise failure
        finally:
            claimer = components.claimer
            left = [*tasks, claiming, stopping, *claimer.tasks.values(), *claimer.running.values()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            with contextlib.suppress(StoreUnavailable):
                with loop_pass("last seal"):
                    await components.audit_sealer.seal_last()
                with loop_pass("last report"):
                    await components.incident_reporter.report()
                with loop_pass("deregistration"):
                    await components.sweeper.deregister()
            await components.accounts.aclose()
            emit("worker.stopped", worker=self.id)

    def _restarted_for_drain(self, tasks: list[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
        """Start again the components without which nothing can be handed over, if they have ended."""
        ended = {task.get_name() for task in tasks if task.done()}
        context = self.components.context
        needed = (("leases", context.leases.run), ("flusher", context.flusher.run))
        return [asyncio.create_task(run(), name=name) for name, run in needed if name in ended]

    async def _drain(self) -> None:
        self.draining = True
        self.components.claimer.allow_pick_jobs = False
        self.components.cron.drain()
        emit("worker.draining", worker=self.id, count=len(self.runs))
        with contextlib.suppress(Exception):  # a heartbeat that fails is no reason to skip the hand-over
            await self.components.sweeper.beat()
        for request, seconds in (
            (Control.DRAIN, self._settings.drain_seconds),
            (Control.INTERRUPT, _SETTLE_TIMEOUT_S),
        ):
            for run in list(self.runs):
                run.notify(request)
            tasks = list(self.components.claimer.running.values())
            if tasks:
                await asyncio.wait(tasks, timeout=seconds)


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
    async with redis_of(settings) as redis:
        try:
            await check_durability(redis, allow_eviction=settings.allow_eviction)
            await check_replay(redis, settings.store_url, allow=settings.allow_lossy_restart)
        except StoreChanged:
            pass  # it stays up, not ready, and reports why, until its store is back
        except StoreRefused as error:
            if error.reason == WRONG_USER:
                raise  # a missing right is reported by the watch, and waited for
        if not settings.encryption_keys:
            emit("encryption.off")
        elif settings.accept_unsealed:
            emit("encryption.unsealed_accepted")
        await WorkerProcess(settings, redis).serve(stop or asyncio.Event(), ready)
