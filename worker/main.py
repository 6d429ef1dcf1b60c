"""The composition root of a worker process: builds every part from the settings and runs it until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq.connections import ArqRedis

from worker import embedded
from worker.clock import Clock
from worker.jobs.errors import StoreChanged, StoreRefused, StoreUnavailable
from worker.safety.notices import SafetyNotice
from worker.safety.watch_limits import WatchLimits
from worker.settings import Settings
from worker.store.admission.circuit_breaker import CircuitBreaker, scope_of
from worker.store.admission.model_access import ModelAccessStore
from worker.store.admission.quarantine import Quarantine, QuarantineLimits as Shutting
from worker.store.connection.durability import check_durability
from worker.store.connection.pool import connect
from worker.store.connection.replay_check import check_replay, replay_check
from worker.store.connection.store_clock import StoreClock
from worker.store.connection.store_guard import StoreGuard, guard_of
from worker.store.connection.store_watch import StoreWatch
from worker.store.envelope import MasterKeyring
from worker.store.error_reasons import WRONG_USER
from worker.store.jobs.output_chunks import OutputChunks
from worker.store.jobs.repository import Jobs, retention_of
from worker.store.jobs.stored_job import ClaimedJob
from worker.store.provider.safety_notices import SafetyNotices
from worker.tasks.delivery.dispatcher import Dispatcher
from worker.tasks.execution.claimer import Claimer
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.job_run import DRAIN, INTERRUPT, JobRun
from worker.tasks.execution.lease_renewal import Leases
from worker.tasks.execution.notifier import Notifier
from worker.tasks.execution.output_buffer import OutputFlusher
from worker.tasks.health_server import HealthServer
from worker.tasks.maintenance.access_prober import AccessProber
from worker.tasks.maintenance.account_monitor import AccountMonitor
from worker.tasks.maintenance.audit_sealer import AuditSealer
from worker.tasks.maintenance.cron import CronWorker
from worker.tasks.maintenance.notice_processor import NoticeProcessor, nobody_shut_out
from worker.tasks.maintenance.sweeper import Sweeper
from worker.tasks.rounds import loop_pass
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import broke
from worker.telemetry.metrics import BOOK
from worker.telemetry.setup import listen
from worker.upstream.client import Provider

_SETTLE_SECONDS = 10.0  # for the last commits after the time to drain


@asynccontextmanager
async def redis_of(settings: Settings) -> AsyncIterator[ArqRedis]:
    """A pool on the Redis of the settings, or on an embedded server that lives as long as this block."""
    async with contextlib.AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            url = (await stack.enter_async_context(embedded.Embedded(settings.data_dir))).url
        given = settings.model_copy(update={"redis_url": url})
        guard = StoreGuard(given.mark_file, Clock().dice)
        redis = connect(url, keyring=MasterKeyring.from_settings(settings.encryption_keys), guard=guard)
        stack.push_async_callback(redis.aclose)
        yield redis


def worker_name(clock: Clock) -> str:
    """Unique among all workers that ever were: host, process, dice."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{clock.dice(3).hex()}"


class WorkerProcess:
    """All parts of a worker on one pool."""

    def __init__(self, settings: Settings, redis: ArqRedis, clock: Clock | None = None) -> None:
        listen(settings)
        clock = self.clock = StoreClock(redis, clock or Clock())
        self.id = worker_name(clock)
        self._settings, self._redis = settings, redis
        retention = retention_of(settings)
        jobs = Jobs(redis, clock, retention, Shutting(settings.quarantine_blocks, settings.quarantine_window_seconds))
        pieces = OutputChunks(redis)
        leases = Leases(jobs, settings.lease_seconds)
        key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else "none"
        scope = scope_of(key, settings.openai_org_id, settings.openai_project_id)
        circuit, book, catalogue = CircuitBreaker(redis, scope), ModelAccessStore(redis, scope), settings.catalogue()
        provider = Provider(
            key,
            settings.openai_base_url,
            settings.openai_org_id,
            settings.openai_project_id,
            connect_timeout=settings.connect_seconds,
        )
        access = AccessProber(provider, book, catalogue, clock, settings.upstream)
        self.shop = RunContext(
            worker_id=self.id,
            mode=settings.upstream,
            limits=WatchLimits(settings.first_event_seconds, settings.idle_seconds, settings.check_idle_seconds),
            allow_unknown_models=settings.allow_unknown_models,
            clock=clock,
            catalogue=catalogue,
            jobs=jobs,
            circuit=circuit,
            pieces=pieces,
            provider=provider,
            access=access,
            leases=leases,
            flusher=OutputFlusher(pieces, leases.lost),
        )
        self.runs: set[JobRun] = set()
        self.draining = False
        self.runner = Claimer(
            redis,
            jobs,
            self._run,
            worker_id=self.id,
            max_jobs=settings.max_jobs,
            lease=settings.lease_seconds,
            circuit=scope,
            app_limit=settings.app_max_running,
        )
        self.ears = Notifier(redis, self.runner.wake, leases.look, leases.tell)
        rounds = settings.probe_seconds if settings.openai_api_key else 0
        self.errands = CronWorker(redis, access.probe_all, book.try_lock, rounds, access.probe_on_request)
        self.sweeper = Sweeper(redis, jobs, clock, circuit, self.id, self._state, settings.stuck_seconds)
        notices = SafetyNotices(redis, settings.audit_ttl)
        self.notices = NoticeProcessor(redis, notices, provider, clock, self._shut_out)
        self.watchman = AccountMonitor(redis, catalogue, notices, clock)
        self.sealer = AuditSealer(redis, clock, settings)
        self.store = StoreWatch(redis, clock, "worker", replay_check(redis, settings), worker=self.id)
        self.delivery = Dispatcher(redis, clock, settings, self.id)

    async def _shut_out(self, app: str, notice: SafetyNotice) -> None:
        """The provider's word on an end user puts that end user into quarantine."""
        person = notice.safety_identifier or ""
        if await Quarantine(self._redis, self.shop.clock).add_by_provider(app, person, notice.at, notice.type):
            await nobody_shut_out(app, notice)

    def _state(self) -> dict[str, object]:
        return {"running": len(self.runs), "draining": self.draining, "slots": self._settings.max_jobs}

    async def _why_not_ready(self) -> str:
        """Why no jobs are claimed now; "" when they are."""
        if self.draining:
            return "draining"
        return await self.store.check()

    async def _run(self, held: ClaimedJob) -> None:
        run = JobRun(self.shop, held)
        self.runs.add(run)
        if self.draining:
            run.tell(DRAIN)
        try:
            await run()
        finally:
            self.runs.discard(run)

    async def serve(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Works until `stop`, then drains: hands over what can be taken up elsewhere, lets short jobs finish.

        Answers about itself, if its settings name a port, until the very end.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self._settings.worker_port:
                health = HealthServer(self._why_not_ready, BOOK.text)
                await stack.enter_async_context(
                    health.listening(self._settings.worker_host, self._settings.worker_port)
                )
            await self._serve(stop, ready)

    async def _serve(self, stop: asyncio.Event, ready: asyncio.Event | None) -> None:
        await self.store.check()  # what is missing is said first
        await self.clock.refresh()
        with contextlib.suppress(StoreUnavailable), loop_pass("access"):
            await self.shop.access.refresh()  # what is denied is known before the first job
        guard = guard_of(self._redis)
        parts = [
            asyncio.create_task(part, name=name)
            for name, part in (
                ("store", self.store.run()),
                ("clock", self.clock.run()),
                ("leases", self.shop.leases.run()),
                ("flusher", self.shop.flusher.run()),
                ("ears", self.ears.run(ready)),
                ("sweeper", self.sweeper.run()),
                ("access", self.shop.access.run()),
                ("errands", self.errands.run()),
                ("notices", self.notices.run()),
                ("watchman", self.watchman.run()),
                ("delivery", self.delivery.run()),
                ("sealer", self.sealer.run()),
                *((("store-guard", guard.run(self._redis)),) if guard else ()),
            )
        ]
        claiming = asyncio.create_task(self.runner.main(), name="claiming")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        emit("worker.started", worker=self.id, slots=self._settings.max_jobs)
        broken: BaseException | None = None
        try:
            try:
                done, _ = await asyncio.wait([*parts, claiming, stopping], return_when=asyncio.FIRST_COMPLETED)
                broken = _broken(done - {stopping})
            finally:  # whatever ends this worker, what runs upstream is handed over while it can be
                parts += self._needed_to_drain(parts)
                await self._drain()
            if broken is not None:
                raise broken
        finally:
            ends = [*parts, claiming, stopping, *self.runner.tasks.values(), *self.runner.running.values()]
            for task in ends:
                task.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            with contextlib.suppress(StoreUnavailable):
                with loop_pass("last seal"):
                    await self.sealer.leave()
                with loop_pass("goodbye"):
                    await self.sweeper.leave()
            await self.shop.provider.aclose()
            emit("worker.stopped", worker=self.id)

    def _needed_to_drain(self, parts: list[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
        """The parts without which nothing can be handed over, begun anew if they have ended."""
        ended = {task.get_name() for task in parts if task.done()}
        needed = (("leases", self.shop.leases.run), ("flusher", self.shop.flusher.run))
        return [asyncio.create_task(run(), name=name) for name, run in needed if name in ended]

    async def _drain(self) -> None:
        self.draining = True
        self.runner.allow_pick_jobs = False
        self.errands.drain()
        emit("worker.draining", worker=self.id, count=len(self.runs))
        with contextlib.suppress(Exception):  # no sign of life is a reason to leave what runs upstream
            await self.sweeper.beat()
        for word, seconds in ((DRAIN, self._settings.drain_seconds), (INTERRUPT, _SETTLE_SECONDS)):
            for run in list(self.runs):
                run.tell(word)
            tasks = list(self.runner.running.values())
            if tasks:
                await asyncio.wait(tasks, timeout=seconds)


def _broken(tasks: set[asyncio.Task[Any]]) -> BaseException | None:
    """The fault of the parts that ended by themselves, which none should; each is told."""
    found: BaseException | None = None
    for task in tasks:
        error = RuntimeError(f"{task.get_name()} ended") if task.cancelled() else task.exception()
        error = error or RuntimeError(f"{task.get_name()} ended")
        if isinstance(error, Exception):
            broke("worker.broke", error, what=task.get_name())
        found = found or error
    return found


async def run_worker(
    settings: Settings, *, stop: asyncio.Event | None = None, ready: asyncio.Event | None = None
) -> None:
    """One worker until `stop` is set. Raises StoreUnavailable or UnsafeStore when it can't begin."""
    async with redis_of(settings) as redis:
        try:
            await check_durability(redis, allow_eviction=settings.allow_eviction)
            await check_replay(redis, settings.store_url, allow=settings.allow_lossy_restart)
        except StoreChanged:
            pass  # it stays, not ready, and says why, until its store is back
        except StoreRefused as error:
            if error.reason == WRONG_USER:
                raise  # a missing right is named by the watch, and waited for
        if not settings.encryption_keys:
            emit("encryption.off")
        await WorkerProcess(settings, redis).serve(stop or asyncio.Event(), ready)
