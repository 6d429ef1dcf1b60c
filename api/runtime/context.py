"""The parts that handlers work with, made once per process, and how a handler gets at them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from starlette.requests import Request

from api.runtime.broadcaster import Hub
from api.runtime.key_cache import Keyring
from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.settings import Settings
from worker.store.admission.quarantine import Limits
from worker.store.apps import Apps
from worker.store.connection.kept_secrets import IDENTIFIER, Secrets
from worker.store.connection.pool import Redis
from worker.store.connection.store_watch import StoreWatch
from worker.store.jobs.output_chunks import Pieces
from worker.store.jobs.repository import Jobs, retention_of
from worker.telemetry.metrics import Sample


@dataclass(slots=True)
class Scraped:
    """What was last read for /metrics, and when; `turn` lets one read for all who ask."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: float = -math.inf
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that outlives a request."""

    settings: Settings
    clock: Clock
    redis: Redis
    catalogue: Catalogue
    jobs: Jobs
    pieces: Pieces
    secrets: Secrets
    keyring: Keyring
    hub: Hub
    store: StoreWatch
    scraped: Scraped = field(default_factory=Scraped)


def assemble(settings: Settings, redis: Redis, clock: Clock) -> Parts:
    """All parts on one Redis."""
    given = {}
    if settings.identifier_secret is not None:
        given[IDENTIFIER] = settings.identifier_secret.get_secret_value().encode()
    shutting = Limits(settings.quarantine_blocks, settings.quarantine_window_seconds)
    return Parts(
        settings=settings,
        clock=clock,
        redis=redis,
        catalogue=settings.catalogue(),
        jobs=Jobs(redis, clock, retention_of(settings), shutting),
        pieces=Pieces(redis),
        secrets=Secrets(redis, clock, given),
        keyring=Keyring(Apps(redis, clock), clock),
        hub=Hub(redis),
        store=StoreWatch(redis, clock, "api"),
    )


def parts_of(request: Request) -> Parts:
    """The parts of the app that serves this request."""
    parts: Parts = request.scope["app"].state.parts
    return parts
