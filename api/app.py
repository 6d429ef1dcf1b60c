"""Builds the ASGI app: context, routes, middleware, and the tasks that run as long as the app does.

Plain Starlette: bodies, parameters and errors are handled in api/web, more strictly than a framework would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
from api.runtime.context import AppContext
from api.runtime.partitions import Partitions, build_partitions
from api.runtime.store_setup import check_stores, open_stores
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
from worker.store.partitions.stores import PartitionStore
from worker.telemetry.events import event_context
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


def create_app(
    settings: Settings | None = None,
    redis: Redis | None = None,
    clock: Clock | None = None,
    stores: Sequence[PartitionStore] | None = None,
) -> Starlette:
    """Return the API on this Redis client or on these stores; without, on those of the environment's settings.

    Clients that it opens itself, it checks at start and closes at the end; those that it is given, the caller closes.
    """
    settings = settings or load()
    start_telemetry(settings)
    if redis is not None:
        stores = [PartitionStore(settings, redis)]
    own = open_stores(settings) if stores is None else None
    served = stores if stores is not None else own or []
    clocks = [StoreClock(one.redis, clock or Clock()) for one in served]
    partitions = build_partitions([(one.settings, one.redis, at) for one, at in zip(served, clocks, strict=True)])

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if own is not None:
            await check_stores(own)
        try:
            async with _background_tasks(partitions, [one.redis for one in served], clocks):
                yield
        finally:
            for one in own or ():
                await one.redis.aclose(close_connection_pool=True)

    documents = _documents()
    console = console_routes() if settings.console else []
    app = _App(routes=[*documents.described, *documents.routes.all, *console], lifespan=lifespan)
    app.router.redirect_slashes = False
    app.state.partitions, app.state.context = partitions, partitions.home
    return app


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document, as GET /openapi.json shows it."""
    return _documents().openapi


def _documents() -> Documents:
    return Documents([route for module in _MODULES for route in module.routes.all])


@asynccontextmanager
async def _background_tasks(
    partitions: Partitions, clients: Sequence[Redis], clocks: Sequence[StoreClock]
) -> AsyncIterator[None]:
    """Run the watch over the models file, and what each partition needs."""
    home = partitions.home
    async with AsyncExitStack() as stack:
        tasks = [
            asyncio.create_task(ModelsFileWatch(home.settings, home.catalogue).run(), name="vigil-models"),
            asyncio.create_task(home.incident_reporter.run(), name="vigil-incidents"),
        ]
        stack.push_async_callback(_cancelled, tasks)
        await asyncio.gather(*(context.store_watch.check() for context in partitions.all))
        for context, redis, store_clock in zip(partitions.all, clients, clocks, strict=True):
            with event_context(partition=context.settings.partition.name if partitions.several else ""):
                await stack.enter_async_context(_tasks_of(context, redis, store_clock))
        try:
            yield
        finally:
            await home.background.stop()
            await home.incident_reporter.report()
    home.large_work.close()
    home.resolver.close()


@asynccontextmanager
async def _tasks_of(context: AppContext, redis: Redis, store_clock: StoreClock) -> AsyncIterator[None]:
    """Run the watch over a store, its clock, callers, reports, broadcaster and guard; its watch has checked it once."""
    await store_clock.refresh()
    tasks = [
        asyncio.create_task(context.store_watch.run(), name="vigil-store"),
        asyncio.create_task(store_clock.run(), name="vigil-clock"),
        asyncio.create_task(context.callers.run(), name="vigil-callers"),
        asyncio.create_task(context.heartbeat.run(), name="vigil-heartbeat"),
        asyncio.create_task(context.key_uses.run(), name="vigil-key-uses"),
    ]
    context.broadcaster.start()
    guard = guard_of(redis)
    if guard:
        tasks.append(asyncio.create_task(guard.run(redis), name="store-guard"))
    try:
        yield
    finally:
        await _cancelled(tasks)
        await context.key_uses.write()
        await context.broadcaster.stop()


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in reversed(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
