"""The composition root of a worker process: builds every component from the settings, on one Redis client.

`main.py` runs them. Nothing here starts, connects or waits.
"""

from __future__ import annotations

from collections.abc import Callable

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.models_file import ModelsFileWatch
from worker.provider_accounts import provider_accounts
from worker.safety.notices import SafetyNotice
from worker.safety.watch_limits import WatchLimits
from worker.settings import Settings
from worker.store.admission.pacing import PaceRules
from worker.store.audit.trail import Trail
from worker.store.connection.replay_check import replay_check
from worker.store.connection.store_clock import StoreClock
from worker.store.connection.store_watch import StoreWatch
from worker.store.end_users.ledger_entries import quarantine_limits
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.output_chunks import OutputChunks
from worker.store.jobs.repository import Jobs, retention_of
from worker.store.provider.durations import DurationCache
from worker.store.provider.relayed_requests import RelayedRequests
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.stats.incidents import IncidentReporter
from worker.tasks.account_connections import AccountConnections
from worker.tasks.delivery.dispatcher import Dispatcher
from worker.tasks.execution.claimer import Claimer, RunJob
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.lease_renewal import Leases
from worker.tasks.execution.notifier import Notifier
from worker.tasks.execution.output_buffer import OutputFlusher
from worker.tasks.execution.reading_pace import ReadingPace
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


class WorkerComponents:
    """All components of one worker: `run` runs a claimed job, `state` is what its heartbeat says."""

    def __init__(
        self,
        settings: Settings,
        redis: ArqRedis,
        clock: Clock,
        worker_id: str,
        run: RunJob,
        state: Callable[[], dict[str, object]],
    ) -> None:
        self.clock = store_clock = StoreClock(redis, clock)
        limits = quarantine_limits(settings)
        jobs = Jobs(redis, store_clock, retention_of(settings), limits)
        chunks = OutputChunks(redis)
        leases = Leases(jobs, settings.lease_seconds)
        catalogue, accounts = settings.catalogue(), provider_accounts(settings)
        accounts.require_keys()
        self.accounts = AccountConnections.build(accounts, settings, redis, catalogue, store_clock)
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
            run,
            worker_id=worker_id,
            max_jobs=settings.max_jobs,
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
        self.sweeper = Sweeper(redis, jobs, store_clock, self.accounts, worker_id, state, settings.stuck_seconds)
        notices = SafetyNotices(redis, settings.audit_ttl)
        quarantine = _quarantine_by_provider(Quarantine(redis, store_clock), settings.quarantine_days)
        self.notice_processor = NoticeProcessor(redis, notices, self._provider_of, store_clock, quarantine)
        self.models_watch = ModelsFileWatch(settings, catalogue)
        self.account_monitor = AccountMonitor(
            redis, catalogue, notices, store_clock, pace.set_widened, list(accounts.by_name)
        )
        self.output_archiver = OutputArchiver(redis, store_clock)
        self.audit_sealer = AuditSealer(redis, store_clock, settings)
        self.migrator = Migrator(redis, store_clock, worker_id)
        self.audit_archiver = AuditArchiver(redis, store_clock, settings)
        self.store_watch = StoreWatch(redis, store_clock, "worker", replay_check(redis, settings), worker=worker_id)
        self.incident_reporter = IncidentReporter(redis, store_clock)
        self.dispatcher = Dispatcher(redis, store_clock, settings, worker_id)

    def _provider_of(self, account: str) -> Provider | None:
        """Return the connection of an account; None if this worker has none of that name."""
        found = self.accounts.named(account)
        return found.provider if found is not None else None


def _quarantine_by_provider(quarantine: Quarantine, days: int) -> QuarantineEndUser:
    async def quarantine_end_user(app: str, notice: SafetyNotice) -> None:
        if await quarantine.add_by_provider(app, notice.safety_identifier or "", notice.at, notice.type, days):
            await log_notice(app, notice)

    return quarantine_end_user
