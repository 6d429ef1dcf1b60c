"""The parts that handlers work with, made once per process, and how a handler gets at them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from starlette.requests import Request

from api.runtime.broadcaster import Broadcaster
from api.runtime.key_cache import KeyCache
from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.settings import Settings
from worker.store.admission.quarantine import QuarantineLimits
from worker.store.apps import Apps
from worker.store.connection.kept_secrets import IDENTIFIER, KeptSecrets
from worker.store.connection.pool import Redis
from worker.store.connection.replay_check import replay_check
from worker.store.connection.store_watch import StoreWatch
from worker.store.jobs.output_chunks import OutputChunks
from worker.store.jobs.repository import Jobs, retention_of
from worker.telemetry.metrics import Sample


@dataclass(slots=True)
class ScrapeCache:
    """What was last read for /metrics, and when; `turn` lets one read for all who ask."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: float = -math.inf
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AppContext:
    """Everything that outlives a request."""

    settings: Settings
    clock: Clock
    redis: Redis
    catalogue: Catalogue
    jobs: Jobs
    pieces: OutputChunks
    secrets: KeptSecrets
    keyring: KeyCache
    hub: Broadcaster
    store: StoreWatch
    scraped: ScrapeCache = field(default_factory=ScrapeCache)


def assemble(settings: Settings, redis: Redis, clock: Clock) -> AppContext:
    """All parts on one Redis."""
    given = {}
    if settings.identifier_secret is not None:
        given[IDENTIFIER] = settings.identifier_secret.get_secret_value().encode()
    shutting = QuarantineLimits(settings.quarantine_blocks, settings.quarantine_window_seconds)
    return AppContext(
        settings=settings,
        clock=clock,
        redis=redis,
        catalogue=settings.catalogue(),
        jobs=Jobs(redis, clock, retention_of(settings), shutting),
        pieces=OutputChunks(redis),
        secrets=KeptSecrets(redis, clock, given),
        keyring=KeyCache(Apps(redis, clock), clock),
        hub=Broadcaster(redis),
        store=StoreWatch(redis, clock, "api", replay_check(redis, settings)),
    )


def parts_of(request: Request) -> AppContext:
    """The parts of the app that serves this request."""
    parts: AppContext = request.scope["app"].state.parts
    return parts
