"""The provider's webhooks: authentic or refused, kept before they are acknowledged, never the reason why a job ends."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import AppContext, parts_of
from api.runtime.store_deadline import ask
from api.schema.openapi import DirectRoute, json_body, operation, parameter
from api.web.body import parse, read
from api.web.params import header
from api.web.problems import Problem
from api.web.responses import as_json
from worker.safety import notices as provider
from worker.store.jobs.provider_ids import job_of
from worker.store.provider.safety_notices import SafetyNotices
from worker.webhooks.verifying import NotAuthentic, verify

router = APIRouter(route_class=DirectRoute, tags=["hooks"])
_HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
_EXAMPLE: Final = {"object": "event", "id": "evt_1", "type": "safety.alert.created", "data": {"id": "alert_1"}}


@router.post(
    "/hooks/openai",
    **operation(
        "receive_openai_webhook",
        "The provider's webhooks",
        {200: ("Kept, or known already.", "Heard")},
        scope=None,
        problems=(400, 404, 413, 503),
        parameters=tuple(parameter(name, "As Standard Webhooks has it.", where="header") for name in _HEADERS),
        body=json_body({"type": "object"}, _EXAMPLE),
    ),
)
async def receive(request: Request) -> Response:
    """400 for what the provider did not sign just now; 503 when Redis can't keep it: the provider tries again."""
    parts = parts_of(request)
    raw = await read(request, parts.settings.max_body_bytes)
    webhook_id = _authentic(request, parts, raw)
    event = _event(raw)
    kind = provider.type_of(event)
    if kind is None:
        raise Problem(400, "malformed_event", "The body is not an event: it has no type.")
    notices = SafetyNotices(parts.redis, parts.settings.audit_ttl)
    notice = provider.read(event, webhook_id, parts.clock.now())
    new = await ask(request, notices.hear(webhook_id, kind, notice))
    if new and kind in provider.RESPONSE_ENDED:
        await ask(request, _tell_holder(parts, notices, provider.response_id_of(event)))
    return as_json({"received": True, "duplicate": not new})


def _authentic(request: Request, parts: AppContext, raw: bytes) -> str:
    """The webhook-id of a request that the provider signed."""
    secret: SecretStr | None = parts.settings.openai_webhook_secret
    if secret is None:
        detail = "No webhooks are taken here: OPENAI_WEBHOOK_SECRET is not set."
        raise Problem(404, "webhooks_not_configured", detail)
    sent = [header(request.scope, name.encode()) for name in _HEADERS]
    ids, stamps, signatures = sent
    try:
        return verify([secret.get_secret_value()], ids, stamps, signatures, raw, parts.clock.now())
    except NotAuthentic as error:
        raise Problem(400, "invalid_signature", f"This is no webhook of the provider's: {error}.") from None


def _event(raw: bytes) -> dict[str, Any]:
    try:
        event = parse(raw)
    except Problem as problem:
        raise Problem(400, problem.code, problem.detail) from None
    if not isinstance(event, dict):
        raise Problem(400, "malformed_event", "The body is not an event: it is no object.")
    return event


async def _tell_holder(parts: AppContext, notices: SafetyNotices, response_id: str | None) -> None:
    """Whoever reads that response makes sure that it is over; only what is read from the provider settles a job."""
    job_id = await job_of(parts.redis, None, response_id)
    if job_id is not None and response_id is not None:
        await notices.ended(job_id, response_id)
