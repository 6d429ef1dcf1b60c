"""Webhooks of an app: its standing endpoints, and what was delivered of a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter
from pydantic import AfterValidator, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.jobs.webhook_url import check_webhook_url
from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import ask
from api.schema.openapi import JOB, JOB_ID, DirectRoute, json_body, operation
from api.schema.requests import EmptyBody, EventName, Url
from api.schema.responses import NUMBER, SHAPES, TEXT, TIME, WHOLE, Shape, listed, many, maybe, obj, one_of, ref
from api.web.auth import allowed, own_job
from api.web.body import read_json, read_optional
from api.web.params import query
from api.web.problems import Problem, from_validation
from api.web.responses import as_json
from worker.jobs.events import TERMINAL_FACTS
from worker.jobs.spec import PayloadKind, Spec
from worker.store.jobs.stored_job import StoredJob
from worker.store.webhooks.endpoints import Endpoint, Endpoints
from worker.store.webhooks.outbox import Outbox, OutboxMessage
from worker.webhooks.signing import new_secret

router = APIRouter(route_class=DirectRoute, tags=["webhooks"])
T = TypeVar("T", bound=Spec)

_ALL: Final = "/v1/webhook-endpoints"
_ONE: Final = _ALL + "/{endpoint_id}"
_ONE_ID: Final = {**JOB_ID, "name": "endpoint_id", "description": "`we_…`"}
_MESSAGE_ID: Final = {**JOB_ID, "name": "message_id", "description": "`msg_…`"}
_SECRET_BYTES: Final = 32

_ENDPOINT: Final[dict[str, Shape]] = {
    "id": TEXT,
    "url": TEXT,
    "events": many(TEXT),
    "payload": one_of("thin", "full", "openai"),
    "description": TEXT,
    "state": one_of("active", "paused", "gone"),
    "created_at": TIME,
}
_RECEIPT: Final[Shape] = obj(
    at=TIME,
    trigger=one_of("scheduled", "manual"),
    status_code=maybe(WHOLE),
    seconds=NUMBER,
    error=maybe(TEXT),
    response_excerpt=maybe(TEXT),
)
SHAPES.update(
    {
        "WebhookEndpoint": obj(**_ENDPOINT),
        "WebhookEndpointWithSecret": obj(**_ENDPOINT, secret=TEXT),
        "WebhookEndpointList": listed(ref("WebhookEndpoint")),
        "Message": obj(
            id=TEXT,
            type=TEXT,
            seq=WHOLE,
            url=maybe(TEXT),
            endpoint=maybe(TEXT),
            state=one_of("pending", "delivered", "exhausted", "gone"),
            created_at=TIME,
            next_try_at=maybe(TIME),
            deliveries=many(_RECEIPT),
        ),
        "MessageList": listed(ref("Message")),
    }
)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


Events = Annotated[tuple[EventName, ...], Field(min_length=1, max_length=50, strict=False)]
Description = Annotated[str, Field(max_length=256), AfterValidator(_printable)]


class NewEndpoint(Spec):
    """A standing endpoint to be; without events it hears of every job's end."""

    url: Url
    events: Events = tuple(fact.TYPE for fact in TERMINAL_FACTS)
    payload: PayloadKind = "thin"
    description: Description = ""


class EndpointChange(Spec):
    """What is to be different; what isn't named stays. `active` also brings back an endpoint that is gone."""

    url: Url = ""
    events: Events = ()
    payload: PayloadKind = "thin"
    description: Description = ""
    state: Literal["active", "paused"] = "active"


_EXAMPLE: Final = {"url": "https://app.example/hooks", "events": ["job.completed", "job.blocked"], "payload": "thin"}


@router.get(
    _ALL,
    **operation(
        "list_webhook_endpoints",
        "The app's standing webhook endpoints",
        {200: ("All of them, oldest first.", "WebhookEndpointList")},
        scope="submit",
    ),
)
async def list_all(request: Request) -> Response:
    """The endpoints without their secrets."""
    key = await allowed(request, "submit")
    query(request)
    found = await ask(request, _endpoints(parts_of(request)).of_app(key.app))
    return as_json({"object": "list", "data": [_view(one) for one in found], "next_cursor": None})


@router.post(
    _ALL,
    **operation(
        "create_webhook_endpoint",
        "Make a standing webhook endpoint",
        {201: ("The endpoint; its secret is shown only now and at rotation.", "WebhookEndpointWithSecret")},
        scope="submit",
        problems=(409,),
        body=json_body(NewEndpoint.model_json_schema(), _EXAMPLE),
        headers=("Location",),
    ),
)
async def create(request: Request) -> Response:
    """It hears of everything that is committed from now on."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    query(request)
    body = _read(await read_json(request, parts.settings.max_body_bytes), NewEndpoint)
    secret = new_secret(parts.clock.dice(_SECRET_BYTES))
    making = _endpoints(parts).create(
        key.app,
        url=check_webhook_url(body.url, parts.settings, "/url"),
        events=body.events,
        payload=body.payload,
        description=body.description,
        secret=secret,
    )
    made = await ask(request, making)
    return as_json({**_view(made), "secret": secret}, 201, {"Location": f"{_ALL}/{made.id}"})


@router.get(
    _ONE,
    **operation(
        "get_webhook_endpoint",
        "A standing webhook endpoint",
        {200: ("The endpoint.", "WebhookEndpoint")},
        scope="submit",
        problems=(404,),
        parameters=(_ONE_ID,),
    ),
)
async def get_one(request: Request) -> Response:
    """The endpoint without its secrets."""
    key = await allowed(request, "submit")
    query(request)
    found = await ask(request, _endpoints(parts_of(request)).find(key.app, _named(request)))
    if found is None:
        raise Problem(404, "webhook_endpoint_not_found", "There is no such webhook endpoint.")
    return as_json(_view(found))


@router.patch(
    _ONE,
    **operation(
        "change_webhook_endpoint",
        "Change a standing webhook endpoint",
        {200: ("The endpoint as it is now.", "WebhookEndpoint")},
        scope="submit",
        problems=(404,),
        parameters=(_ONE_ID,),
        body=json_body(EndpointChange.model_json_schema(), {"state": "paused"}),
    ),
)
async def change(request: Request) -> Response:
    """A paused endpoint gets nothing, and all that it missed once it is active again."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    query(request)
    body = _read(await read_json(request, parts.settings.max_body_bytes), EndpointChange)
    changes: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
    if "url" in changes:
        changes["url"] = check_webhook_url(changes["url"], parts.settings, "/url")
    changing = _endpoints(parts).change(key.app, _named(request), lambda one: replace(one, **changes))
    return as_json(_view(await ask(request, changing)))


@router.delete(
    _ONE,
    **operation(
        "delete_webhook_endpoint",
        "Delete a standing webhook endpoint",
        {204: ("It is gone; what waited for it is not sent.", None)},
        scope="submit",
        problems=(404,),
        parameters=(_ONE_ID,),
    ),
)
async def delete(request: Request) -> Response:
    """Nothing more is sent to it."""
    key = await allowed(request, "submit")
    query(request)
    await ask(request, _endpoints(parts_of(request)).change(key.app, _named(request), lambda _: None))
    return Response(status_code=204)


@router.post(
    f"{_ONE}/rotate-secret",
    **operation(
        "rotate_webhook_secret",
        "Rotate an endpoint's secret",
        {200: ("The new secret; the one before it signs for another 24 hours.", "WebhookEndpointWithSecret")},
        scope="submit",
        problems=(400, 404, 413, 415),
        parameters=(_ONE_ID,),
    ),
)
async def rotate(request: Request) -> Response:
    """From now on each message carries two signatures, for a day."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    query(request)
    _read(await read_optional(request, parts.settings.max_body_bytes), EmptyBody)
    secret = new_secret(parts.clock.dice(_SECRET_BYTES))
    turned = await ask(request, _endpoints(parts).rotate(key.app, _named(request), secret))
    return as_json({**_view(turned), "secret": secret})


@router.get(
    f"{JOB}/deliveries",
    **operation(
        "list_deliveries",
        "The webhook messages of a job",
        {200: ("All messages with a receipt for each try.", "MessageList")},
        scope="read",
        problems=(404,),
        parameters=(JOB_ID,),
    ),
)
async def deliveries(request: Request) -> Response:
    """Messages of the job's own webhook and of the app's standing endpoints, by seq."""
    key, parts = await allowed(request, "read"), parts_of(request)
    query(request)
    stored = await own_job(request, key)
    rows = await ask(request, Outbox(parts.redis, parts.clock).of_job(stored.job.id))
    data = await _shown(request, stored, rows)
    return as_json({"object": "list", "data": data, "next_cursor": None})


@router.post(
    f"{JOB}/deliveries/{{message_id}}/redeliver",
    **operation(
        "redeliver",
        "Send a webhook message again",
        {202: ("The message; it is sent now.", "Message")},
        scope="submit",
        problems=(400, 404, 409, 413, 415),
        parameters=(JOB_ID, _MESSAGE_ID),
    ),
)
async def redeliver(request: Request) -> Response:
    """The same bytes under the same id, signed anew; a failure changes nothing of what was planned."""
    key, parts = await allowed(request, "submit"), parts_of(request)
    query(request)
    _read(await read_optional(request, parts.settings.max_body_bytes), EmptyBody)
    stored, outbox = await own_job(request, key), Outbox(parts.redis, parts.clock)
    name = str(request.path_params["message_id"])
    rows = {message.id: (message, receipts) for message, receipts in await ask(request, outbox.of_job(stored.job.id))}
    if name not in rows:
        raise Problem(404, "message_not_found", "The job has no such message.")
    message, receipts = rows[name]
    if message.endpoint:
        endpoint = await ask(request, _endpoints(parts).find(key.app, message.endpoint))
        if endpoint is None or endpoint.state == "gone":
            raise Problem(409, "endpoint_gone", "The endpoint is gone; PATCH its state to active first.")
    message = await ask(request, outbox.redeliver(stored.job.id, name))
    return as_json((await _shown(request, stored, [(message, receipts)]))[0], 202)


def _endpoints(parts: AppContext) -> Endpoints:
    return Endpoints(parts.redis, parts.clock)


def _named(request: Request) -> str:
    return str(request.path_params["endpoint_id"])


def _read(sent: Any, shape: type[T]) -> T:
    try:
        return shape.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error, sent) from None


def _view(one: Endpoint) -> dict[str, Any]:
    return {
        "id": one.id,
        "url": one.url,
        "events": one.events,
        "payload": one.payload,
        "description": one.description,
        "state": one.state,
        "created_at": datetime.fromtimestamp(one.created_at / 1000, UTC),
    }


async def _shown(
    request: Request, stored: StoredJob, rows: Sequence[tuple[OutboxMessage, list[dict[str, Any]]]]
) -> list[dict[str, Any]]:
    """The messages as their app sees them; the address of an endpoint that was deleted is not known any more."""
    parts = parts_of(request)
    urls: dict[str, Any] = {"": (stored.private.get("webhook") or {}).get("url")}
    if any(message.endpoint for message, _ in rows):
        urls |= {one.id: one.url for one in await ask(request, _endpoints(parts).of_app(stored.job.app))}
    return [
        {
            "id": message.id,
            "type": message.type,
            "seq": message.seq,
            "url": urls.get(message.endpoint),
            "endpoint": message.endpoint or None,
            "state": message.state,
            "created_at": message.created_at,
            "next_try_at": message.next_try_at,
            "deliveries": receipts,
        }
        for message, receipts in rows
    ]
