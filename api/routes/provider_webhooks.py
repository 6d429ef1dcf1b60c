"""POST /hooks/openai: verifies and stores the provider's webhooks before it acknowledges them.

A webhook never ends a job: it makes the holder of the job look at the response.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import json_body, operation, parameter
from api.schema.responses import WebhookReceiptView
from api.web.body import parse_json, read_body
from api.web.params import header_values
from api.web.problems import Problem
from api.web.responses import json_response
from worker.safety import notices as provider
from worker.webhooks.verifying import NotAuthentic, verify

routes = Routes("hooks")
_HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
_EXAMPLE: Final = {"object": "event", "id": "evt_1", "type": "safety.alert.created", "data": {"id": "alert_1"}}


@routes.post(
    "/hooks/openai",
    operation(
        "receive_openai_webhook",
        "Receive a webhook of the provider",
        {200: ("Stored, or a duplicate.", WebhookReceiptView)},
        scope=None,
        problems=(400, 404, 413, 503),
        parameters=tuple(parameter(name, "As defined by Standard Webhooks.", where="header") for name in _HEADERS),
        body=json_body({"type": "object"}, _EXAMPLE),
    ),
)
async def receive(request: Request) -> Response:
    """Stores the event; 400 without a recent signature of the provider, 503 if the store is unavailable: it is then
    delivered again.
    """
    context = context_of(request)
    raw = await read_body(request, context.settings.max_body_bytes)
    webhook_id = _verified_id(request, context, raw)
    event = _parse_event(raw)
    kind = provider.type_of(event)
    if kind is None:
        raise Problem(400, "malformed_event", "The body is not an event: it has no type.")
    notice = provider.read(event, webhook_id, context.clock.now())
    new = await with_deadline(request, context.notices.store_webhook(webhook_id, kind, notice))
    if new and kind in provider.RESPONSE_END_TYPES:
        await with_deadline(request, _notify_holder(context, provider.response_id_of(event)))
    receipt: WebhookReceiptView = {"received": True, "duplicate": not new}
    return json_response(receipt)


def _verified_id(request: Request, context: AppContext, raw: bytes) -> str:
    """Return the webhook-id; raise a Problem unless the provider signed the request."""
    secret: SecretStr | None = context.settings.openai_webhook_secret
    if secret is None:
        detail = "Webhooks are not configured: OPENAI_WEBHOOK_SECRET is not set."
        raise Problem(404, "webhooks_not_configured", detail)
    sent = [header_values(request.scope, name.encode()) for name in _HEADERS]
    ids, stamps, signatures = sent
    try:
        return verify([secret.get_secret_value()], ids, stamps, signatures, raw, context.clock.now())
    except NotAuthentic as error:
        raise Problem(400, "invalid_signature", f"The webhook could not be verified: {error}.") from None


def _parse_event(raw: bytes) -> dict[str, Any]:
    try:
        event = parse_json(raw)
    except Problem as problem:
        raise Problem(400, problem.code, problem.detail) from None
    if not isinstance(event, dict):
        raise Problem(400, "malformed_event", "The body is not an event: it must be an object.")
    return event


async def _notify_holder(context: AppContext, response_id: str | None) -> None:
    """Have the worker that reads the response check whether it has ended: only that can settle a job."""
    job_id = await context.job_access.of_response(response_id)
    if job_id is not None and response_id is not None:
        await context.notices.notify_response_ended(job_id, response_id)
