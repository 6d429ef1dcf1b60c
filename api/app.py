"""Puts the API together; decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.openai_compat import routes
from api.routes import (
    audit,
    events,
    health,
    jobs,
    pauses,
    provider_webhooks,
    quarantine,
    status,
    submit,
    support_packet,
    webhooks,
)
from api.runtime.context import assemble
from api.runtime.store_deadline import within
from api.schema.docs_page import POLICY, page
from api.schema.openapi import document
from api.schema.views import dumps
from api.web.middleware import RequestMiddleware
from api.web.tracing_middleware import TracingMiddleware
from worker.clock import Clock
from worker.jobs.errors import StoreRefused, StoreUnavailable
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.connection.error_reasons import WRONG_USER
from worker.store.connection.pool import Redis, check_safe, connect
from worker.store.connection.replay_check import check_replay
from worker.store.connection.store_clock import StoreClock
from worker.store.connection.store_guard import StoreGuard, guard_of
from worker.store.envelope import Vault
from worker.telemetry.events import emit
from worker.telemetry.setup import start_telemetry

_CHECK_SECONDS = 2.0
_MOST_CONNECTIONS = 16  # with the one that listens, below 20 whatever is asked at once (`ops/bench/watchers.py`)
_ROUTES = (
    submit,
    jobs,
    pauses,
    quarantine,
    events,
    audit,
    status,
    health,
    webhooks,
    provider_webhooks,
    support_packet,
    routes,
)
_ABOUT = "An async job queue for long, safety-checked model requests."


class _App(FastAPI):
    """Routes and their document. What the framework would put around them costs a submit a twentieth and does nothing
    for us: no handler has dependencies or background tasks, body.py limits bodies, and the door answers for exceptions.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """All that a request passes on its way to a route."""
        return TracingMiddleware(RequestMiddleware(self.router, self.state.parts.clock))


async def check_store(settings: Settings, redis: Redis) -> None:
    """UnsafeStore when this Redis could drop accepted jobs, now or at a restart, StoreRefused when it does not let us
    in; one that is away is waited for.
    """
    if not settings.encryption_keys:
        emit("encryption.off")
    try:
        await within(_CHECK_SECONDS, check_safe(redis, allow_eviction=settings.allow_eviction))
        checking = check_replay(redis, settings.store_url, allow=settings.allow_lossy_restart)
        await within(_CHECK_SECONDS, checking)
    except StoreRefused as error:
        if error.reason == WRONG_USER:
            raise  # who waited for that to pass would wait for ever; a missing right is named and waited for
    except StoreUnavailable:
        pass  # the process's `StoreWatch` says so


def open_store(settings: Settings) -> Redis:
    """A client on the Redis of the settings, or on the embedded one."""
    vault = Vault.of(settings.encryption_keys)
    guard = StoreGuard(settings.mark_file, Clock().dice)
    return connect(settings.store_url, vault=vault, guard=guard, max_connections=_MOST_CONNECTIONS)


def create_app(settings: Settings | None = None, redis: Redis | None = None, clock: Clock | None = None) -> FastAPI:
    """The API on this Redis; without arguments as the environment says.

    A Redis it opens itself it checks and closes itself; one that it is given is its giver's business.
    """
    settings = settings or load()
    start_telemetry(settings)
    own = redis is None
    redis = redis if redis is not None else open_store(settings)
    shared = StoreClock(redis, clock or Clock())
    parts = assemble(settings, redis, shared)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if own:
            await check_store(settings, redis)
        await parts.store.look()  # what is missing is said first
        await shared.ask()
        watching = [
            asyncio.create_task(parts.store.run(), name="vigil-store"),
            asyncio.create_task(shared.run(), name="vigil-clock"),
        ]
        parts.hub.start()
        guard = guard_of(redis)
        guarding = asyncio.create_task(guard.run(redis), name="store-guard") if guard else None
        try:
            yield
        finally:
            if guarding is not None:
                guarding.cancel()
                await asyncio.gather(guarding, return_exceptions=True)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await parts.hub.stop()
            if own:
                await redis.aclose(close_connection_pool=True)

    app = _App(
        title="Vigil",
        version="1",
        description=_ABOUT,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # its logs would carry exception texts
    )
    app.state.parts = parts
    for module in _ROUTES:
        app.router.routes.extend(module.router.routes)  # as they are: inclusion would wrap each in a second match
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """/openapi.json, built when first asked for, and /docs."""
    built: dict[str, bytes] = {}

    def openapi() -> dict[str, Any]:
        app.openapi_schema = app.openapi_schema or document(app)
        return app.openapi_schema

    async def spec(_: Request) -> Response:
        if "json" not in built:
            built["json"] = dumps(app.openapi())
        return Response(built["json"], media_type="application/json")

    async def docs(_: Request) -> Response:
        if "html" not in built:
            built["html"] = page(app.openapi()).encode()
        return Response(built["html"], headers={"Content-Security-Policy": POLICY}, media_type="text/html")

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_route("/openapi.json", spec, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
