"""Builds the ASGI app: context, routes, middleware, and the tasks that run as long as the app does.

Plain Starlette: bodies, parameters and errors are handled in api/web, more strictly than a framework would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp

from api.console.routes import console_routes
from api.openai_compat import relayed as openai_relayed, routes as openai
from api.openai_compat.chat import routes as openai_chat
from api.openai_compat.conversations import routes as openai_conversations
from api.openai_compat.error_format import respond
from api.routes import (
    accounts,
    app_retention,
    appeals,
    audit,
    bulk_actions,
    deliveries,
    end_users,
    events,
    explanation,
    groups,
    health,
    job_actions,
    job_token,
    jobs,
    legal_holds,
    pauses,
    provider_webhooks,
    quarantine,
    reports,
    status,
    submit,
    support_packet,
    webhook_endpoints,
)
from api.routes.documents import Documents
from api.runtime.context import AppContext, build_context
from api.runtime.store_setup import check_store, open_store
from api.web.cors import CorsMiddleware
from api.web.forwarded import ForwardedMiddleware
from api.web.middleware import RequestMiddleware
from api.web.tracing_middleware import TracingMiddleware
from worker.clock import Clock
from worker.models_file import ModelsFileWatch
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.connection.pool import Redis
from worker.store.connection.store_clock import StoreClock
from worker.store.connection.store_guard import guard_of
from worker.telemetry.setup import start_telemetry

_MODULES = (
    submit,
    groups,
    explanation,
    bulk_actions,
    jobs,
    job_actions,
    job_token,
    pauses,
    quarantine,
    end_users,
    appeals,
    app_retention,
    events,
    audit,
    legal_holds,
    reports,
    status,
    accounts,
    health,
    webhook_endpoints,
    deliveries,
    provider_webhooks,
    support_packet,
    openai_relayed,
    openai,
    openai_chat,
    openai_conversations,
)


class _App(Starlette):
    """The routes, within our own middleware. Starlette's would cost a submit a twentieth and do nothing here:
    body.py limits bodies, and RequestMiddleware turns exceptions into responses.
    """

    def build_middleware_stack(self) -> ASGIApp:
        """Return what a request passes on its way to a route."""
        context: AppContext = self.state.context
        inner: ASGIApp = TracingMiddleware(RequestMiddleware(self.router, context, respond))
        if context.settings.cors_origins:
            inner = CorsMiddleware(inner, context.settings.cors_origins)
        return ForwardedMiddleware(inner, context.settings.trusted_proxies, context.settings.root_path)


def create_app(settings: Settings | None = None, redis: Redis | None = None, clock: Clock | None = None) -> Starlette:
    """Return the API on this Redis client; without arguments, on the one of the environment's settings.

    A client that it opens itself, it checks at start and closes at the end; one that it is given, the caller closes.
    """
    settings = settings or load()
    start_telemetry(settings)
    own = redis is None
    redis = redis if redis is not None else open_store(settings)
    store_clock = StoreClock(redis, clock or Clock())
    context = build_context(settings, redis, store_clock)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if own:
            await check_store(settings, redis)
        try:
            async with _background_tasks(context, redis, store_clock):
                yield
        finally:
            if own:
                await redis.aclose(close_connection_pool=True)

    documents = _documents()
    console = console_routes() if settings.console else []
    app = _App(routes=[*documents.described, *documents.routes.all, *console], lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.context = context
    return app


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document, as GET /openapi.json shows it."""
    return _documents().openapi


def _documents() -> Documents:
    return Documents([route for module in _MODULES for route in module.routes.all])


@asynccontextmanager
async def _background_tasks(context: AppContext, redis: Redis, store_clock: StoreClock) -> AsyncIterator[None]:
    """Run the watches over store and models file, the clock, callers, heartbeat, reports, broadcaster and guard."""
    await context.store_watch.check()  # reports missing rights before anything else fails because of them
    await store_clock.refresh()
    tasks = [
        asyncio.create_task(context.store_watch.run(), name="vigil-store"),
        asyncio.create_task(store_clock.run(), name="vigil-clock"),
        asyncio.create_task(context.callers.run(), name="vigil-callers"),
        asyncio.create_task(context.heartbeat.run(), name="vigil-heartbeat"),
        asyncio.create_task(context.incident_reporter.run(), name="vigil-incidents"),
        asyncio.create_task(context.key_uses.run(), name="vigil-key-uses"),
        asyncio.create_task(ModelsFileWatch(context.settings, context.catalogue).run(), name="vigil-models"),
    ]
    context.broadcaster.start()
    guard = guard_of(redis)
    if guard:
        tasks.append(asyncio.create_task(guard.run(redis), name="store-guard"))
    try:
        yield
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await context.incident_reporter.report()
        await context.key_uses.write()
        await context.background.stop()
        await context.broadcaster.stop()
        context.large_work.close()
        context.resolver.close()
