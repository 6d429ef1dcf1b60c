"""Models and the access to them; the state of the deployment: queue, workers, account."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.deployment_status import read_deployment, status_view
from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_deadline, with_timeout
from api.schema.documented_route import Routes
from api.schema.openapi import TEXT, operation
from api.schema.requests import EmptyBody
from api.schema.responses import ModelListView, ModelProblemView, ModelView
from api.schema.status_responses import StatusView
from api.schema.views import model_view
from api.web.auth import authorize
from api.web.body import read_optional_json
from api.web.params import query_params
from api.web.problems import Problem
from api.web.responses import json_response
from api.web.validation import validate
from api.web.waiting import wait_for
from worker.safety.access import ModelAccess
from worker.store.apps import ApiKey

routes = Routes()
_PROBE_TIMEOUT_S: Final = 10.0
_PROBLEM: Final = ("application/problem+json", ModelProblemView)
_MODEL_ID: Final = {"name": "model_id", "in": "path", "required": True, "schema": TEXT, "description": "Name or alias."}


@routes.get(
    "/v1/models",
    operation(
        "list_models",
        "List models with prices and access",
        {200: ("All known models.", ModelListView)},
        scope="read",
        problem=_PROBLEM,
    ),
)
async def models(request: Request) -> Response:
    """Returns the catalogue with what the workers know of the access to each model."""
    key = await authorize(request, "read")
    query_params(request)
    return json_response(await with_deadline(request, _models(context_of(request), key)))


async def _models(context: AppContext, key: ApiKey) -> ModelListView:
    access, unknown = await context.deployment.access(key.app), ModelAccess()
    now = context.clock.now()
    data = [model_view(model, access.get(name, unknown), now) for name, model in context.catalogue.models.items()]
    return {"object": "list", "data": data, "next_cursor": None}


@routes.post(
    "/v1/models/probe",
    operation(
        "probe_models",
        "Probe which models the provider's key may call",
        {200: ("All known models, with the access that a worker found just now.", ModelListView)},
        scope="ops",
        problems=(400, 413, 415),
    ),
)
async def probe(request: Request) -> Response:
    """Has a worker probe each model: this process has no key of the provider."""
    key = await authorize(request, "ops")
    query_params(request)
    context = context_of(request)
    validate(EmptyBody, await read_optional_json(request, context.settings.body_limit))
    found = bool(await with_deadline(request, context.deployment.workers()))
    if found:
        probing = context.deployment.request_probe(_PROBE_TIMEOUT_S)
        found = await wait_for(request, with_timeout(_PROBE_TIMEOUT_S + STORE_TIMEOUT_S, probing))
    if not found:
        detail = "No worker has responded: start one with `vigil worker`, or run `vigil doctor`."
        raise Problem(503, "no_worker", detail, headers={"Retry-After": "10"})
    return json_response(await with_deadline(request, _models(context, key)))


@routes.get(
    "/v1/models/{model_id:path}",
    operation(
        "get_model",
        "Get a model with its prices and access",
        {200: ("The model, by its name or an alias.", ModelView)},
        scope="read",
        problems=(404,),
        problem=_PROBLEM,
        parameters=(_MODEL_ID,),
    ),
)
async def model(request: Request) -> Response:
    """Returns one model of the catalogue, in the shape that clients of OpenAI read too."""
    key = await authorize(request, "read")
    query_params(request)
    context = context_of(request)
    found = context.catalogue.find(str(request.path_params["model_id"]))
    if found is None:
        raise Problem(404, "model_not_found", "There is no such model here; GET /v1/models lists those that there are.")
    access = await with_deadline(request, context.deployment.access(key.app))
    return json_response(model_view(found, access.get(found.id, ModelAccess()), context.clock.now()))


@routes.get(
    "/v1/status",
    operation(
        "get_status",
        "Get the state of the deployment",
        {200: ("Queue, workers, accounts, circuits, pauses, pacing.", StatusView)},
        scope="read",
    ),
)
async def status(request: Request) -> Response:
    """Returns how many jobs wait and run, the workers, the accounts, circuits, pauses, what waits for limits."""
    key = await authorize(request, "read")
    query_params(request)
    context = context_of(request)
    found = await with_deadline(request, read_deployment(context))
    return json_response(status_view(context, found, key))
