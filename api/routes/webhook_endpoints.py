"""The standing webhook endpoints of an app: /v1/webhook-endpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.acting import record_act
from api.jobs.endpoint_views import endpoint_views
from api.jobs.webhook_url import check_webhook_url
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import JOB_ID, json_body, operation
from api.schema.requests import EmptyBody, EventName, Url
from api.schema.responses import WebhookEndpointListView, WebhookEndpointView, WebhookEndpointWithSecretView
from api.web.auth import authorize
from api.web.body import read_json, read_optional_json
from api.web.forwarded import prefix
from api.web.params import query_params
from api.web.problems import Problem
from api.web.responses import json_response
from api.web.validation import validate
from worker.jobs.events import TERMINAL_FACTS
from worker.jobs.spec import PayloadKind, Spec
from worker.store.apps import ApiKey
from worker.store.webhooks.endpoints import Endpoint
from worker.webhooks.signing import new_secret

routes = Routes("webhooks")

_ALL: Final = "/v1/webhook-endpoints"
_ONE: Final = _ALL + "/{endpoint_id}"
_ENDPOINT_ID: Final = {**JOB_ID, "name": "endpoint_id", "description": "`we_…`"}
_SECRET_BYTES: Final = 32


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


Events = Annotated[tuple[EventName, ...], Field(min_length=1, max_length=50, strict=False)]
Description = Annotated[str, Field(max_length=256), AfterValidator(_printable)]


class NewEndpoint(Spec):
    """The body that creates a standing endpoint; without events it receives the end of every job."""

    url: Url
    events: Events = tuple(fact.TYPE for fact in TERMINAL_FACTS)
    payload: PayloadKind = "thin"
    description: Description = ""


class EndpointChange(Spec):
    """What to change; fields that are not sent stay as they are. `active` also revives an endpoint that is gone."""

    url: Url = ""
    events: Events = ()
    payload: PayloadKind = "thin"
    description: Description = ""
    state: Literal["active", "paused"] = "active"


_EXAMPLE: Final = {"url": "https://app.example/hooks", "events": ["job.completed", "job.blocked"], "payload": "thin"}


@routes.get(
    _ALL,
    operation(
        "list_webhook_endpoints",
        "List the app's standing webhook endpoints",
        {200: ("All of them, oldest first.", WebhookEndpointListView)},
        scope="submit",
    ),
)
async def list_endpoints(request: Request) -> Response:
    """Returns the endpoints without their secrets."""
    key = await authorize(request, "submit")
    query_params(request)
    found = await with_deadline(request, context_of(request).endpoints.of_app(key.app))
    rows = await with_deadline(request, endpoint_views(context_of(request), found))
    page: WebhookEndpointListView = {"object": "list", "data": rows, "next_cursor": None}
    return json_response(page)


@routes.post(
    _ALL,
    operation(
        "create_webhook_endpoint",
        "Create a standing webhook endpoint",
        {201: ("The endpoint; its secret is shown only now and at rotation.", WebhookEndpointWithSecretView)},
        scope="submit",
        problems=(409,),
        body=json_body(NewEndpoint, _EXAMPLE),
        headers=("Location",),
    ),
)
async def create_endpoint(request: Request) -> Response:
    """Creates an endpoint, which receives every event from now on."""
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    body = validate(NewEndpoint, await read_json(request, context.settings.body_limit))
    secret = new_secret(context.clock.random_bytes(_SECRET_BYTES))
    creating = context.endpoints.create(
        key.app,
        url=check_webhook_url(body.url, context.settings, "/url"),
        events=body.events,
        payload=body.payload,
        description=body.description,
        secret=secret,
    )
    endpoint = await with_deadline(request, creating)
    await record_act(request, key, "webhook_endpoint.created", endpoint_id=endpoint.id)
    location = f"{prefix(request.scope)}{_ALL}/{endpoint.id}"
    return json_response(await _with_secret(request, endpoint, secret), 201, {"Location": location})


@routes.get(
    _ONE,
    operation(
        "get_webhook_endpoint",
        "Get a standing webhook endpoint",
        {200: ("The endpoint.", WebhookEndpointView)},
        scope="submit",
        problems=(404,),
        parameters=(_ENDPOINT_ID,),
    ),
)
async def get_endpoint(request: Request) -> Response:
    """Returns the endpoint without its secrets."""
    key = await authorize(request, "submit")
    query_params(request)
    return json_response(await _view(request, await _own(request, key)))


@routes.patch(
    _ONE,
    operation(
        "change_webhook_endpoint",
        "Change a standing webhook endpoint",
        {200: ("The changed endpoint.", WebhookEndpointView)},
        scope="submit",
        problems=(404,),
        parameters=(_ENDPOINT_ID,),
        body=json_body(EndpointChange, {"state": "paused"}),
    ),
)
async def change_endpoint(request: Request) -> Response:
    """Changes an endpoint. A paused one receives nothing, and everything it missed once it is active again."""
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    body = validate(EndpointChange, await read_json(request, context.settings.body_limit))
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if "url" in changes:
        changes["url"] = check_webhook_url(changes["url"], context.settings, "/url")
    await _record(request, key, "changed", fields=sorted(body.model_fields_set))
    changing = context.endpoints.change(key.app, _endpoint_id(request), lambda one: replace(one, **changes), key.id)
    return json_response(await _view(request, await with_deadline(request, changing)))


@routes.delete(
    _ONE,
    operation(
        "delete_webhook_endpoint",
        "Delete a standing webhook endpoint",
        {204: ("Deleted; pending messages for it are not sent.", None)},
        scope="submit",
        problems=(404,),
        parameters=(_ENDPOINT_ID,),
    ),
)
async def delete_endpoint(request: Request) -> Response:
    """Deletes the endpoint. Nothing more is sent to it."""
    key = await authorize(request, "submit")
    query_params(request)
    await _record(request, key, "deleted")
    deleting = context_of(request).endpoints.change(key.app, _endpoint_id(request), lambda _: None, key.id)
    await with_deadline(request, deleting)
    return Response(status_code=204)


@routes.post(
    f"{_ONE}/rotate-secret",
    operation(
        "rotate_webhook_secret",
        "Rotate an endpoint's secret",
        {200: ("The new secret; the previous one also signs for another 24 hours.", WebhookEndpointWithSecretView)},
        scope="submit",
        problems=(400, 404, 413, 415),
        parameters=(_ENDPOINT_ID,),
    ),
)
async def rotate_secret(request: Request) -> Response:
    """Replaces the secret. For 24 hours each message carries two signatures."""
    key, context = await authorize(request, "submit"), context_of(request)
    query_params(request)
    validate(EmptyBody, await read_optional_json(request, context.settings.body_limit))
    secret = new_secret(context.clock.random_bytes(_SECRET_BYTES))
    await _record(request, key, "secret_rotated")
    endpoint = await with_deadline(request, context.endpoints.rotate(key.app, _endpoint_id(request), secret, key.id))
    return json_response(await _with_secret(request, endpoint, secret))


async def _own(request: Request, key: ApiKey) -> Endpoint:
    found = await with_deadline(request, context_of(request).endpoints.find(key.app, _endpoint_id(request)))
    if found is None:
        raise Problem(404, "webhook_endpoint_not_found", "There is no such webhook endpoint.")
    return found


async def _record(request: Request, key: ApiKey, act: str, **data: Any) -> None:
    """Record in the trail what is about to be done to an endpoint of the app; raise a Problem (404) if it has none."""
    one = await _own(request, key)
    await record_act(request, key, f"webhook_endpoint.{act}", endpoint_id=one.id, **data)


def _endpoint_id(request: Request) -> str:
    return str(request.path_params["endpoint_id"])


async def _with_secret(request: Request, one: Endpoint, secret: str) -> WebhookEndpointWithSecretView:
    return {**await _view(request, one), "secret": secret}


async def _view(request: Request, one: Endpoint) -> WebhookEndpointView:
    return (await with_deadline(request, endpoint_views(context_of(request), [one])))[0]
