"""The composition root of a worker process: builds every component from the settings, on one Redis client each.

`main.py` runs them. Nothing here starts, connects or waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.models_file import ModelsFileWatch
from worker.provider_accounts import provider_accounts
from worker.safety.notices import SafetyNotice
from worker.safety.watch_limits import WatchLimits
from worker.settings import Settings
from worker.store.admission.pacing import PaceRules
from worker.store.audit.trail import Trail
from worker.store.connection.store_clock import StoreClock
from worker.store.connection.store_guard import guard_of
from worker.store.connection.store_watch import StoreWatch
from worker.store.end_users.ledger_entries import quarantine_limits
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.output_chunks import OutputChunks
from worker.store.jobs.repository import Jobs, retention_of
from worker.store.jobs.stored_job import ClaimedJob
from worker.store.partitions.identity import check_store_of
from worker.store.provider.durations import DurationCache
from worker.store.provider.relayed_requests import RelayedRequests
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.stats.incidents import IncidentReporter
from worker.tasks.account_connections import AccountConnections, open_providers
from worker.tasks.delivery.dispatcher import Dispatcher
from worker.tasks.execution.claimer import Claimer
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.lease_renewal import Leases
from worker.tasks.execution.notifier import Notifier
from worker.tasks.execution.output_buffer import OutputFlusher
from worker.tasks.execution.reading_pace import ReadingPace
from worker.tasks.execution.slots import Slots
from worker.tasks.loop import loop_pass
from worker.tasks.maintenance.account_monitor import AccountMonitor
from worker.tasks.maintenance.audit_archiver import AuditArchiver
from worker.tasks.maintenance.audit_sealer import AuditSealer
from worker.tasks.maintenance.cron import CronWorker
from worker.tasks.maintenance.migrator import Migrator
from worker.tasks.maintenance.notice_processor import NoticeProcessor, QuarantineEndUser, log_notice
from worker.tasks.maintenance.output_archiver import OutputArchiver
from worker.tasks.maintenance.sweeper import Sweeper
from worker.tasks.request_relay import RequestRelay
from worker.upstream.client import Provider


class WorkerParts:
    """What a worker has once, however many partitions it serves: models, clients of the provider, slots."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.catalogue, self.accounts = settings.catalogue(), provider_accounts(settings)
        self.accounts.require_keys()
        self.providers = open_providers(self.accounts, settings)
        self.slots = Slots(settings.max_jobs, clock.monotonic)
        self.models_watch = ModelsFileWatch(settings, self.catalogue)

    async def aclose(self) -> None:
        """Close every connection to the provider."""
        await asyncio.gather(*(provider.aclose() for provider in self.providers.values()))


class WorkerComponents:
    """All components of one partition: `run` runs a claimed job, `state` is what the worker's heartbeat says there."""

    def __init__(
        self,
        settings: Settings,
        redis: ArqRedis,
        clock: Clock,
        worker_id: str,
        run: Callable[[WorkerComponents, ClaimedJob], Coroutine[Any, Any, None]],
        state: Callable[[WorkerComponents], dict[str, object]],
        parts: WorkerParts,
    ) -> None:
        self.partition, self.redis = settings.partition, redis
        self.running = 0
        self._tasks = list[asyncio.Task[None]]()
        self.clock = store_clock = StoreClock(redis, clock)
        limits = quarantine_limits(settings)
        jobs = Jobs(redis, store_clock, retention_of(settings), limits)
        chunks = OutputChunks(redis)
        leases = Leases(jobs, settings.lease_seconds)
        catalogue, accounts = parts.catalogue, parts.accounts
        self.accounts = AccountConnections.build(accounts, parts.providers, redis, catalogue, store_clock)
        slowed = (settings.pacing, settings.end_user_max_running, settings.widened_rpm)
        pace = PaceRules(catalogue, *slowed, accounts.bindings, list(accounts.by_name))
        self.context = RunContext(
            worker_id=worker_id,
            limits=WatchLimits(settings.first_event_seconds, settings.idle_seconds, settings.check_idle_seconds),
            allow_unknown_models=settings.allow_unknown_models,
            clock=store_clock,
            catalogue=catalogue,
            jobs=jobs,
            chunks=chunks,
            accounts=self.accounts,
            leases=leases,
            flusher=OutputFlusher(chunks, leases.mark_lost),
            reading=ReadingPace(),
            durations=DurationCache(redis, store_clock),
            pace=pace,
        )
        self.claimer = Claimer(
            redis,
            jobs,
            lambda claimed: run(self, claimed),
            worker_id=worker_id,
            slots=parts.slots,
            lease=settings.lease_seconds,
            circuits=self.accounts.scopes,
            pace=pace,
            app_limit=settings.app_max_running,
            app_share=settings.app_slot_share,
        )
        self.notifier = Notifier(redis, self.claimer.wake, leases)
        self.cron = CronWorker(
            redis,
            self.accounts.probe_all,
            self.accounts.take_turn,
            settings.probe_seconds if any(one.has_key for one in self.accounts.all) else 0,
            self.accounts.probe_on_request,
            RequestRelay(RelayedRequests(redis, store_clock), self.accounts, Trail(redis, store_clock)).relay,
        )
        self.sweeper = Sweeper(
            redis, jobs, store_clock, self.accounts, worker_id, lambda: state(self), settings.stuck_seconds
        )
        notices = SafetyNotices(redis, settings.audit_ttl)
        quarantine = _quarantine_by_provider(Quarantine(redis, store_clock), settings.quarantine_days)
        self.notice_processor = NoticeProcessor(redis, notices, self._provider_of, store_clock, quarantine)
        self.account_monitor = AccountMonitor(
            redis, catalogue, notices, store_clock, pace.set_widened, list(accounts.by_name)
        )
        self.output_archiver = OutputArchiver(redis, store_clock)
        self.audit_sealer = AuditSealer(redis, store_clock, settings)
        self.migrator = Migrator(redis, store_clock, worker_id)
        self.audit_archiver = AuditArchiver(redis, store_clock, settings)
        named: dict[str, Any] = {"partition": settings.partition.name} if len(settings.partitions) > 1 else {}
        self.store_watch = StoreWatch(
            redis, store_clock, "worker", lambda: check_store_of(redis, settings), worker=worker_id, **named
        )
        self.incident_reporter = IncidentReporter(redis, store_clock, counted_only=not settings.partition.is_home)
        self.dispatcher = Dispatcher(redis, store_clock, settings, worker_id)

    async def prepare(self) -> None:
        """Look at the store and read what all workers know, before anything runs. Raises nothing if it is away."""
        await self.store_watch.check()  # what Redis lacks is reported first
        await self.clock.refresh()
        if self.store_watch.answers:
            with contextlib.suppress(StoreUnavailable), loop_pass("access"):
                await self.accounts.refresh()  # denied models are known before the first job

    def start(self, subscribed: asyncio.Event) -> list[asyncio.Task[None]]:
        """Start every component; `subscribed` is set once jobs are listened for."""
        guard, context = guard_of(self.redis), self.context
        works: list[tuple[str, Coroutine[Any, Any, None]]] = [
            ("store", self.store_watch.run()),
            ("clock", self.clock.run()),
            ("leases", context.leases.run()),
            ("flusher", context.flusher.run()),
            ("notifier", self.notifier.run(subscribed)),
            ("sweeper", self.sweeper.run()),
            ("access", self.accounts.run()),
            ("cron", self.cron.run()),
            ("notices", self.notice_processor.run()),
            ("account-monitor", self.account_monitor.run()),
            ("delivery", self.dispatcher.run()),
            ("sealer", self.audit_sealer.run()),
            ("migrator", self.migrator.run()),
            ("archiver", self.audit_archiver.run()),
            ("outputs", self.output_archiver.run()),
            ("incidents", self.incident_reporter.run()),
            *((("store-guard", guard.run(self.redis)),) if guard else ()),
            ("claiming", self.claimer.main()),
        ]
        self._tasks = [asyncio.create_task(work, name=name) for name, work in works]
        return self._tasks

    def restarted_for_drain(self) -> list[asyncio.Task[None]]:
        """Start again the components without which nothing can be handed over, if they have ended."""
        ended = {task.get_name() for task in self._tasks if task.done()}
        needed = (("leases", self.context.leases.run), ("flusher", self.context.flusher.run))
        return [asyncio.create_task(run(), name=name) for name, run in needed if name in ended]

    async def finish(self) -> None:
        """Write what must not be lost, once everything has ended."""
        with contextlib.suppress(StoreUnavailable):
            with loop_pass("last seal"):
                await self.audit_sealer.seal_last()
            with loop_pass("last report"):
                await self.incident_reporter.report()
            with loop_pass("deregistration"):
                await self.sweeper.deregister()

    def _provider_of(self, account: str) -> Provider | None:
        """Return the connection of an account; None if this worker has none of that name."""
        found = self.accounts.named(account)
        return found.provider if found is not None else None


def _quarantine_by_provider(quarantine: Quarantine, days: int) -> QuarantineEndUser:
    async def quarantine_end_user(app: str, notice: SafetyNotice) -> None:
        if await quarantine.add_by_provider(app, notice.safety_identifier or "", notice.at, notice.type, days):
            await log_notice(app, notice)

    return quarantine_end_user
