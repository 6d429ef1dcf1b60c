"""What is true of the whole: models, status, alive, ready."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import SECONDS, ask, within
from api.schema.account_view import account_view, rates_view
from api.schema.openapi import DirectRoute, operation
from api.schema.requests import EmptyBody
from api.schema.views import concerns, model_view, pause_view
from api.web.auth import allowed
from api.web.body import read_optional
from api.web.params import query
from api.web.problems import Problem, from_validation
from api.web.responses import as_json
from worker.safety.access import ModelAccess
from worker.store.admission.circuit_breaker import list_circuits as open_circuits
from worker.store.admission.model_access import known_access, request_probe
from worker.store.admission.pauses import Pauses
from worker.store.apps import ApiKey
from worker.store.provider.account_state import read_account_state
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.stats import queue_depth
from worker.store.stats.worker_registry import workers

router = APIRouter(route_class=DirectRoute)
_PROBE_SECONDS: Final = 10.0


@router.get(
    "/v1/models",
    **operation("list_models", "Models, prices, access", {200: ("All known models.", "ModelList")}, scope="read"),
)
async def models(request: Request) -> Response:
    """The catalogue, and what the workers know of the access to each model."""
    await allowed(request, "read")
    query(request)
    return as_json(await ask(request, _models(parts_of(request))))


async def _models(parts: AppContext) -> dict[str, Any]:
    known, nothing = await known_access(parts.redis), ModelAccess()
    data = [model_view(model, known.get(name, nothing)) for name, model in parts.catalogue.models.items()]
    return {"object": "list", "data": data, "next_cursor": None}


@router.post(
    "/v1/models/probe",
    **operation(
        "probe_models",
        "Ask the provider which models this key may call",
        {200: ("All known models, as a worker found them just now.", "ModelList")},
        scope="ops",
        problems=(400, 413, 415),
    ),
)
async def probe(request: Request) -> Response:
    """A worker asks the provider about each model: this process needs no key and knows no provider."""
    await allowed(request, "ops")
    query(request)
    parts = parts_of(request)
    sent = await read_optional(request, parts.settings.max_body_bytes)
    try:
        EmptyBody.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error, sent) from None
    if not await ask(request, workers(parts.redis, parts.clock)) or not await within(
        _PROBE_SECONDS + SECONDS, request_probe(parts.redis, _PROBE_SECONDS)
    ):
        detail = "No worker has answered: start one with `vigil worker`, or look with `vigil doctor`."
        raise Problem(503, "no_worker", detail, headers={"Retry-After": "10"})
    return as_json(await ask(request, _models(parts)))


@router.get(
    "/v1/status",
    **operation("get_status", "Queue, workers, account", {200: ("The state of the whole.", "Status")}, scope="read"),
)
async def status(request: Request) -> Response:
    """What waits, what runs, who works."""
    key = await allowed(request, "read")
    query(request)
    return as_json(await ask(request, _status(parts_of(request), key)))


async def _status(parts: AppContext, key: ApiKey) -> dict[str, Any]:
    notices = SafetyNotices(parts.redis, parts.settings.audit_ttl)
    stands = await read_account_state(parts.redis, parts.catalogue, notices, parts.clock.now())
    return {
        "queue": asdict(await queue_depth.depths(parts.redis, parts.clock)),
        "workers": await workers(parts.redis, parts.clock),
        "account": account_view(stands),
        "rates": rates_view(stands),
        "circuits": await open_circuits(parts.redis),
        "pauses": [pause_view(one) for one in await Pauses(parts.redis, parts.clock).list() if concerns(one, key)],
    }
