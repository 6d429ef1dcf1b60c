"""What is true of the whole: models, status, alive, ready."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.asking import query
from api.auth import allowed
from api.openapi import Direct, operation
from api.parts import Parts, parts_of
from api.patience import ask, within
from api.replies import as_json
from api.views import model_view
from worker.store import overview
from worker.store.account import circuits as open_circuits

router = APIRouter(route_class=Direct)
_READY_SECONDS: Final = 1.0
_WINDOW: Final = 3600


@router.get(
    "/v1/models",
    **operation("list_models", "Models, prices, access", {200: ("All known models.", "ModelList")}, scope="read"),
)
async def models(request: Request) -> Response:
    """The catalogue."""
    await allowed(request, "read")
    query(request)
    data = [model_view(model) for model in parts_of(request).catalogue.models.values()]
    return as_json({"object": "list", "data": data, "next_cursor": None})


@router.get(
    "/v1/status",
    **operation("get_status", "Queue, workers, account", {200: ("The state of the whole.", "Status")}, scope="read"),
)
async def status(request: Request) -> Response:
    """What waits, what runs, who works."""
    await allowed(request, "read")
    query(request)
    return as_json(await ask(request, _status(parts_of(request))))


async def _status(parts: Parts) -> dict[str, Any]:
    return {
        "queue": asdict(await overview.depths(parts.redis, parts.clock)),
        "workers": await overview.workers(parts.redis, parts.clock),
        "account": {"state": "unknown", "families": {}, "evidence": {}},
        "rates": {"checks": None, "blocks": None, "substitutions": None, "window_seconds": _WINDOW},
        "circuits": await open_circuits(parts.redis),
        "pauses": [],
    }


@router.get("/healthz", **operation("alive", "Alive", {200: ("This process answers.", "Alive")}, scope=None))
async def healthz(_: Request) -> Response:
    """Says nothing of Redis: a restart would not bring it back."""
    return as_json({"status": "ok"})


@router.get(
    "/readyz",
    **operation("ready", "Able to accept", {200: ("Redis takes writes.", "Alive")}, scope=None, problems=(503,)),
)
async def readyz(request: Request) -> Response:
    """A write reached Redis just now."""
    await within(_READY_SECONDS, overview.writable(parts_of(request).redis))
    return as_json({"status": "ok"})
