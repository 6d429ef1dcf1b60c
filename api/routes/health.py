"""Routes for operators and their tools: liveness, readiness, metrics, how many workers are wanted."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import AppContext, context_of
from api.runtime.partitions import partitions_of
from api.runtime.store_deadline import with_deadline, with_timeout
from api.schema.documented_route import Routes
from api.schema.openapi import operation
from api.schema.responses import HealthView, ProviderEndpointView
from api.schema.views import endpoint_view
from api.web.auth import authorize
from api.web.params import query_params
from api.web.problems import Problem
from api.web.responses import json_response
from worker.jobs.errors import StoreUnavailable
from worker.store.stats.metrics import ScaleDemand
from worker.telemetry.metrics import CONTENT_TYPE, REGISTRY, Sample

routes = Routes()
_SCRAPE_TIMEOUT_S: Final = 3.0
_CACHE_TTL_S: Final = 1.0


@routes.get("/healthz", operation("alive", "Liveness", {200: ("This process responds.", HealthView)}, scope=None))
async def healthz(_: Request) -> Response:
    """Does not check Redis: a restart of this process would not repair it."""
    return json_response({"status": "ok"})


@routes.get(
    "/readyz",
    operation(
        "ready",
        "Readiness",
        {200: ("Redis accepts writes and allows every command that is needed.", HealthView)},
        scope=None,
        problems=(503,),
    ),
)
async def readyz(request: Request) -> Response:
    """Checks that Redis accepts a write and every command needed, and that this process is not shutting down.

    Where a deployment has several stores, one that can be used is enough; `partitions` says which can't be, and why.
    """
    if context_of(request).broadcaster.closing:
        raise Problem(503, "shutting_down", "This process is shutting down.", headers={"Retry-After": "1"})
    contexts = partitions_of(request).all
    reasons = await asyncio.gather(*(context.readiness.result() for context in contexts))
    away = {one.settings.partition.name: reason for one, reason in zip(contexts, reasons, strict=True) if reason}
    if len(away) == len(contexts):  # this route is for operators' tools: they get the full reason
        changed = any(one.store_watch.changed for one in contexts)
        code, later = ("store_changed", "30") if changed else ("store_unavailable", "2")
        reason = reasons[0] if len(contexts) == 1 else "; ".join(f"{name}: {why}" for name, why in away.items())
        raise Problem(503, code, reason if changed else f"Not ready: {reason}.", headers={"Retry-After": later})
    return json_response({"status": "ok", "partitions": away} if away else {"status": "ok"})


@routes.get(
    "/metrics",
    operation("metrics", "Metrics", {200: ("In the text format of Prometheus.", None)}, scope=None, text=True),
)
async def metrics(request: Request) -> Response:
    """Returns what this process has counted and what Redis holds now; names no job, no app and no person."""
    return Response(REGISTRY.text(await _store_samples(context_of(request))), media_type=CONTENT_TYPE)


async def _store_samples(context: AppContext) -> list[Sample]:
    """Return the samples read from Redis, at most once a second however many requests there are: the route needs no
    key.
    """
    scraped = context.scrape_cache
    async with scraped.lock:
        now = context.clock.monotonic()
        if now - scraped.at >= _CACHE_TTL_S:
            try:
                scraped.samples = await with_timeout(_SCRAPE_TIMEOUT_S, context.deployment.samples())
            except StoreUnavailable:
                scraped.samples = [("vigil_redis_up", {}, 0)]
            scraped.at = context.clock.monotonic()
        return scraped.samples


@routes.get(
    "/v1/ops/scale",
    operation("scale", "How many worker slots are wanted", {200: ("For an autoscaler.", ScaleDemand)}, scope="ops"),
)
async def scale(request: Request) -> Response:
    """Returns how many slots ready and running jobs need; while a circuit is open, waiting jobs need none."""
    await authorize(request, "ops")
    query_params(request)
    return json_response(await with_deadline(request, context_of(request).deployment.scale()))


@routes.get(
    "/v1/ops/endpoint",
    operation(
        "endpoint",
        "Whether VIGIL_UPSTREAM fits the provider's server",
        {200: ("The result of the latest `POST /v1/models/probe`.", ProviderEndpointView)},
        scope="ops",
    ),
)
async def endpoint(request: Request) -> Response:
    """Returns what a worker found at the latest probe."""
    key, deployment = await authorize(request, "ops"), context_of(request).deployment
    query_params(request)
    return json_response(endpoint_view(await with_deadline(request, deployment.endpoint(key.app))))
