"""The objects that handlers work with, built once per process, and how a handler gets at them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Scope

from api.runtime.audit_access import AuditAccess
from api.runtime.background_work import BackgroundWork
from api.runtime.body_budget import BodyBudget
from api.runtime.bounded_turns import BoundedTurns
from api.runtime.broadcaster import Broadcaster
from api.runtime.console_sessions import ConsoleSessions
from api.runtime.console_state import ConsoleState
from api.runtime.conversations import Conversations
from api.runtime.deployment_state import DeploymentState
from api.runtime.job_access import JobAccess
from api.runtime.job_changes import JobChanges
from api.runtime.job_lists import JobLists
from api.runtime.job_tokens import JobTokens
from api.runtime.key_cache import KeyCache
from api.runtime.key_use_log import KeyUseLog
from api.runtime.lab_runs import LabRuns
from api.runtime.large_work import LargeWork
from api.runtime.live_values import LiveValues
from api.runtime.login_attempts import LoginAttempts
from api.runtime.name_check import NameCheck
from api.runtime.request_limits import RequestLimits
from api.runtime.shared_call import SharedCall
from api.runtime.trail_check import TrailCheck
from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.provider_accounts import ProviderAccounts, provider_accounts
from worker.settings import Settings
from worker.store.admission.pauses import Pauses
from worker.store.apps import Apps
from worker.store.audit.content_reads import ContentReads
from worker.store.audit.trail import Trail
from worker.store.audit.trail_search import TrailSearch
from worker.store.connection.kept_secrets import IDENTIFIER, KeptSecrets
from worker.store.connection.memory_guard import MemoryGuard
from worker.store.connection.pool import Redis
from worker.store.connection.store_watch import StoreWatch
from worker.store.console_access import ConsoleAccess
from worker.store.conversations.documents import ConversationDocuments
from worker.store.end_users.appeal_notes import AppealNotes
from worker.store.end_users.appeals import Appeals
from worker.store.end_users.end_user_ledger import EndUserLedger
from worker.store.end_users.ledger_entries import quarantine_limits
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.callers import Callers
from worker.store.jobs.control_requests import JobControl
from worker.store.jobs.output_chunks import OutputChunks
from worker.store.jobs.repository import Jobs, retention_of
from worker.store.jobs.streamed_chunks import StreamedChunks
from worker.store.key_uses import KeyUses
from worker.store.lifecycle.retention_change import RetentionChange
from worker.store.partitions.identity import check_store_of
from worker.store.provider.relayed_requests import RelayedRequests
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.stats.incidents import IncidentReporter
from worker.store.stats.live_processes import ApiHeartbeat
from worker.store.stats.loss_report import LossReport
from worker.store.stats.queue_places import QueuePlaces
from worker.store.webhooks.delivery_log import DeliveryLog
from worker.store.webhooks.endpoints import Endpoints
from worker.store.webhooks.outbox import Outbox
from worker.telemetry.metrics import Sample
from worker.webhooks.guard import AddressPolicy
from worker.webhooks.resolver import SystemResolver

_MAX_WEBHOOK_BODIES: Final = 64
_WEBHOOK_BODY_S: Final = 5.0
"""Of the provider's webhooks: how many bodies are read at a time, and how long one may take."""
_CONTEXT: Final = "vigil.context"


@dataclass(slots=True)
class ScrapeCache:
    """The latest samples read for /metrics, and when; with `lock`, concurrent scrapes read once."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: float = -math.inf
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SharedObjects:
    """What a process has once, however many partitions it serves."""

    catalogue: Catalogue
    accounts: ProviderAccounts
    resolver: SystemResolver
    request_limits: RequestLimits
    body_budget: BodyBudget
    large_work: LargeWork
    webhook_turns: BoundedTurns
    background: BackgroundWork

    @classmethod
    def of(cls, settings: Settings) -> SharedObjects:
        """Build them from the settings."""
        limits = RequestLimits(settings)
        return cls(
            catalogue=settings.catalogue(),
            accounts=provider_accounts(settings),
            resolver=SystemResolver(),
            request_limits=limits,
            body_budget=BodyBudget(settings.body_memory_bytes, settings.media_body_limit),
            large_work=LargeWork(limits.is_shared),
            webhook_turns=BoundedTurns(_MAX_WEBHOOK_BODIES, min(_WEBHOOK_BODY_S, settings.body_seconds)),
            background=BackgroundWork(),
        )


@dataclass(frozen=True, slots=True)
class AppContext:
    """Everything that outlives a request, of one partition. Routes reach Redis only through these objects."""

    settings: Settings
    clock: Clock
    catalogue: Catalogue
    accounts: ProviderAccounts
    jobs: Jobs
    job_access: JobAccess
    conversations: Conversations
    relayed: RelayedRequests
    job_control: JobControl
    callers: Callers
    heartbeat: ApiHeartbeat
    output_chunks: OutputChunks
    streamed_chunks: StreamedChunks
    secrets: KeptSecrets
    key_cache: KeyCache
    key_uses: KeyUseLog
    job_tokens: JobTokens
    trail: Trail
    trail_search: TrailSearch
    quarantine: Quarantine
    pauses: Pauses
    endpoints: Endpoints
    outbox: Outbox
    notices: SafetyNotices
    deployment: DeploymentState
    broadcaster: Broadcaster
    store_watch: StoreWatch
    incident_reporter: IncidentReporter
    resolver: SystemResolver
    name_check: NameCheck
    readiness: SharedCall[str]
    webhook_turns: BoundedTurns
    request_limits: RequestLimits
    body_budget: BodyBudget
    large_work: LargeWork
    background: BackgroundWork
    content_reads: ContentReads
    audit_access: AuditAccess
    trail_check: TrailCheck
    retention: RetentionChange
    ledger: EndUserLedger
    appeals: Appeals
    loss_report: LossReport
    appeal_notes: AppealNotes
    delivery_log: DeliveryLog
    lab_runs: LabRuns
    console: ConsoleState
    scrape_cache: ScrapeCache = field(default_factory=ScrapeCache)


def build_context(settings: Settings, redis: Redis, clock: Clock, shared: SharedObjects | None = None) -> AppContext:
    """Build the context on one Redis client; `shared`: what it has in common with those of other partitions."""
    given_secrets = {}
    if settings.identifier_secret is not None:
        given_secrets[IDENTIFIER] = settings.identifier_secret.get_secret_value().encode()
    limits = quarantine_limits(settings)
    shared = shared or SharedObjects.of(settings)
    catalogue, accounts = shared.catalogue, shared.accounts
    key_uses = KeyUseLog(KeyUses(redis), clock)
    secrets, key_cache = KeptSecrets(redis, clock, given_secrets), KeyCache(Apps(redis, clock), clock, key_uses)
    memory = MemoryGuard(redis, clock, reserve=settings.memory_reserve_percent, app_share=settings.app_memory_percent)
    jobs = Jobs(redis, clock, retention_of(settings), limits, memory)
    conversations = Conversations(ConversationDocuments(redis, memory, clock), jobs, clock, settings, key_cache)
    notices = SafetyNotices(redis, settings.audit_ttl)
    places = QueuePlaces(redis, clock, settings.app_max_running, settings.app_slot_share)
    trail, outbox, background = Trail(redis, clock), Outbox(redis, clock), shared.background
    named: dict[str, Any] = {"partition": settings.partition.name} if len(settings.partitions) > 1 else {}
    store_watch = StoreWatch(redis, clock, "api", lambda: check_store_of(redis, settings), memory, **named)
    broadcaster = Broadcaster(redis)
    ledger = EndUserLedger(redis, clock, settings.quarantine_window_seconds, settings.quarantine_blocks)
    return AppContext(
        settings=settings,
        clock=clock,
        catalogue=catalogue,
        accounts=accounts,
        jobs=jobs,
        job_access=JobAccess(redis, jobs, clock, conversations),
        conversations=conversations,
        relayed=RelayedRequests(redis, clock),
        job_control=JobControl(jobs),
        callers=jobs.callers,
        heartbeat=ApiHeartbeat(redis, jobs.callers.process),
        output_chunks=OutputChunks(redis),
        streamed_chunks=StreamedChunks(redis, settings.result_ttl),
        secrets=secrets,
        key_cache=key_cache,
        key_uses=key_uses,
        job_tokens=JobTokens(secrets, key_cache, clock),
        trail=trail,
        trail_search=TrailSearch(redis, clock),
        quarantine=Quarantine(redis, clock),
        pauses=Pauses(redis, clock),
        endpoints=Endpoints(redis, clock),
        outbox=outbox,
        notices=notices,
        deployment=DeploymentState(redis, clock, catalogue, accounts, notices, places, ledger),
        broadcaster=broadcaster,
        resolver=shared.resolver,
        name_check=NameCheck(shared.resolver, clock, AddressPolicy.of(settings)),
        store_watch=store_watch,
        incident_reporter=IncidentReporter(redis, clock),
        readiness=SharedCall(store_watch.check),
        webhook_turns=shared.webhook_turns,
        request_limits=shared.request_limits,
        body_budget=shared.body_budget,
        large_work=shared.large_work,
        background=background,
        content_reads=ContentReads(redis, clock),
        audit_access=AuditAccess(redis, clock, settings, background),
        trail_check=TrailCheck(redis, clock, settings, background),
        retention=RetentionChange(redis, clock, settings),
        ledger=ledger,
        loss_report=LossReport(redis),
        appeals=Appeals(redis, clock),
        appeal_notes=AppealNotes(redis),
        delivery_log=DeliveryLog(redis, clock, outbox),
        lab_runs=LabRuns(trail, clock, catalogue, background),
        console=ConsoleState(
            ConsoleSessions(ConsoleAccess(redis, clock), key_cache, clock),
            LoginAttempts(clock),
            LiveValues(clock),
            JobChanges(broadcaster, clock),
            JobLists(clock),
        ),
    )


def use_context(request: Request, context: AppContext) -> None:
    """Serve this request with the partition of its key from now on."""
    request.scope[_CONTEXT] = context


def context_of(request: Request) -> AppContext:
    """Return the context of the partition that serves this request; that of home until its key is known."""
    context: AppContext = request.scope.get(_CONTEXT) or request.scope["app"].state.context
    return context


def context_in(scope: Scope, home: AppContext) -> AppContext:
    """Return the context that served the request of this scope; `home` if its key was not known."""
    context: AppContext = scope.get(_CONTEXT, home)
    return context
