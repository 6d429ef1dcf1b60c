"""What ops and their machines ask: alive, ready, metrics, how many workers are wanted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import ask, within
from api.schema.openapi import DirectRoute, operation
from api.schema.views import endpoint_view
from api.web.auth import allowed
from api.web.params import query
from api.web.problems import Problem
from api.web.responses import as_json
from worker.jobs.errors import StoreUnavailable
from worker.store.admission.model_access import known_endpoint
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.stats import metrics as stored_metrics
from worker.telemetry.metrics import CONTENT_TYPE, REGISTRY, Sample

router = APIRouter(route_class=DirectRoute)
_SCRAPE_SECONDS: Final = 3.0
_FRESH_SECONDS: Final = 1.0


@router.get("/healthz", **operation("alive", "Alive", {200: ("This process answers.", "Alive")}, scope=None))
async def healthz(_: Request) -> Response:
    """Says nothing of Redis: a restart would not bring it back."""
    return as_json({"status": "ok"})


@router.get(
    "/readyz",
    **operation(
        "ready",
        "Able to accept",
        {200: ("Redis takes writes and allows all that is needed.", "Alive")},
        scope=None,
        problems=(503,),
    ),
)
async def readyz(request: Request) -> Response:
    """A write reached Redis just now, all that we need is allowed there, and we are not about to stop."""
    if parts_of(request).hub.closing:
        raise Problem(503, "shutting_down", "This process is about to stop.", headers={"Retry-After": "1"})
    store = parts_of(request).store
    reason = await store.look()
    if reason:  # this route is asked by operators' machines: they get the whole sentence
        code, later = ("store_changed", "30") if store.changed else ("store_unavailable", "2")
        raise Problem(503, code, reason if store.changed else f"Not ready: {reason}.", headers={"Retry-After": later})
    return as_json({"status": "ok"})


@router.get(
    "/metrics",
    **operation("metrics", "Metrics", {200: ("In Prometheus' text form.", None)}, scope=None, text=True),
)
async def metrics(request: Request) -> Response:
    """What this process has counted, and the whole as Redis tells it now; names no job, no app and no person."""
    return Response(REGISTRY.text(await _whole(parts_of(request))), media_type=CONTENT_TYPE)


async def _whole(parts: AppContext) -> list[Sample]:
    """Read at most once a second however often we are asked: the route needs no key."""
    scraped = parts.scraped
    async with scraped.turn:
        now = parts.clock.monotonic()
        if now - scraped.at >= _FRESH_SECONDS:
            try:
                notices = SafetyNotices(parts.redis, parts.settings.audit_ttl)
                reading = stored_metrics.samples(parts.redis, parts.clock, parts.catalogue, notices)
                scraped.samples = await within(_SCRAPE_SECONDS, reading)
            except StoreUnavailable:
                scraped.samples = [("vigil_redis_up", {}, 0)]
            scraped.at = parts.clock.monotonic()
        return scraped.samples


@router.get(
    "/v1/ops/scale",
    **operation("scale", "How many slots are wanted", {200: ("For an autoscaler.", "Scale")}, scope="ops"),
)
async def scale(request: Request) -> Response:
    """Ready and running jobs as one number; while a circuit is open waiting jobs want no worker."""
    await allowed(request, "ops")
    query(request)
    parts = parts_of(request)
    return as_json(asdict(await ask(request, stored_metrics.scale(parts.redis, parts.clock))))


@router.get(
    "/v1/ops/endpoint",
    **operation(
        "endpoint",
        "Whether VIGIL_UPSTREAM fits the provider's server",
        {200: ("As the latest `POST /v1/models/probe` found it.", "Endpoint")},
        scope="ops",
    ),
)
async def endpoint(request: Request) -> Response:
    """What a worker found when somebody last asked for a probe."""
    await allowed(request, "ops")
    query(request)
    return as_json(endpoint_view(await ask(request, known_endpoint(parts_of(request).redis))))
