"""POST /hooks/openai: verifies and stores the provider's webhooks before it acknowledges them.

Anybody can reach this route, so the body is read only when the head could be the provider's.

A webhook never ends a job: it makes the holder of the job look at the response.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import AppContext, context_of
from api.runtime.partitions import Partitions, partitions_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import json_body, operation, parameter
from api.schema.responses import WebhookReceiptView
from api.web.body import parse_body, read_body
from api.web.header_fields import header_values
from api.web.problems import Problem
from api.web.responses import json_response
from worker.provider_accounts import ProviderAccount
from worker.safety import notices as provider
from worker.safety.notices import SafetyNotice
from worker.webhooks.verifying import NotAuthentic, check_headers, verify

routes = Routes("hooks")
_HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
_MAX_BODY_BYTES: Final = 64 * 1024
_EXAMPLE: Final = {"object": "event", "id": "evt_1", "type": "safety.alert.created", "data": {"id": "alert_1"}}


@routes.post(
    "/hooks/openai",
    operation(
        "receive_openai_webhook",
        "Receive a webhook of the provider",
        {200: ("Stored, or a duplicate.", WebhookReceiptView)},
        scope=None,
        problems=(400, 404, 408, 413, 503),
        parameters=tuple(parameter(name, "As defined by Standard Webhooks.", where="header") for name in _HEADERS),
        body=json_body({"type": "object"}, _EXAMPLE),
    ),
)
async def receive(request: Request) -> Response:
    """Stores the event, of at most 64 KiB; 400 without a recent signature of the provider, 503 if the store is
    unavailable: it is then delivered again.
    """
    context = context_of(request)
    candidates = _check_head(request, context)
    raw = await _read_body(request, context)
    webhook_id, senders = _verified(request, context, candidates, raw)
    event = await _parse_event(request, raw, _MAX_BODY_BYTES)
    kind = provider.type_of(event)
    if kind is None:
        raise Problem(400, "malformed_event", "The body is not an event: it has no type.")
    notice = provider.read(event, webhook_id, context.clock.now(), _sender(event, senders))
    new = await with_deadline(request, _stored(partitions_of(request), webhook_id, kind, notice))
    if new and kind in provider.RESPONSE_END_TYPES:
        response_id = provider.response_id_of(event)
        notifying = partitions_of(request).everywhere(lambda context: _notify_holder(context, response_id))
        await with_deadline(request, notifying)
    receipt: WebhookReceiptView = {"received": True, "duplicate": not new}
    return json_response(receipt)


def _check_head(request: Request, context: AppContext) -> list[ProviderAccount]:
    """Return the accounts with a secret; raise a Problem if no body could make the request authentic: none is read."""
    candidates = [account for account in context.accounts.by_name.values() if account.webhook_secret is not None]
    if not candidates:
        detail = "Webhooks are not configured: OPENAI_WEBHOOK_SECRET is not set."
        raise Problem(404, "webhooks_not_configured", detail)
    try:
        check_headers(*_signed_headers(request), context.clock.now())
    except NotAuthentic as error:
        raise _not_verified(error) from None
    return candidates


async def _read_body(request: Request, context: AppContext) -> bytes:
    """Return the body; raise a Problem if it is too long, or takes too long although others wait for their turn."""
    try:
        async with context.webhook_turns.turn():
            return await read_body(request, min(_MAX_BODY_BYTES, context.settings.body_limit))
    except TimeoutError:
        detail = "The body did not arrive in time; send it again."
        raise Problem(408, "request_timeout", detail, headers={"Connection": "close"}) from None


def _verified(
    request: Request, context: AppContext, candidates: list[ProviderAccount], raw: bytes
) -> tuple[str, list[ProviderAccount]]:
    """Return (the webhook-id, the accounts whose secret signed it); raise a Problem unless the provider signed it."""
    headers, now = _signed_headers(request), context.clock.now()
    found, webhook_id, failure = list[ProviderAccount](), "", NotAuthentic("no signature matches")
    for account in candidates:  # each is tried, so that the time taken reveals nothing
        secret = account.webhook_secret
        try:
            webhook_id = verify([secret.get_secret_value()] if secret is not None else [], *headers, raw, now)
            found.append(account)
        except NotAuthentic as error:
            failure = error
    if not found:
        raise _not_verified(failure)
    return webhook_id, found


def _sender(event: dict[str, Any], senders: list[ProviderAccount]) -> str:
    """Return the account that an event is about: of several with the same secret the one of its project."""
    project = provider.project_of(event)
    return next((one.name for one in senders if project is not None and one.project == project), senders[0].name)


def _signed_headers(request: Request) -> tuple[list[str], list[str], list[str]]:
    """Return all values of each header."""
    ids, stamps, signatures = (header_values(request.scope, name.encode()) for name in _HEADERS)
    return ids, stamps, signatures


def _not_verified(error: NotAuthentic) -> Problem:
    return Problem(400, "invalid_signature", f"The webhook could not be verified: {error}.")


async def _parse_event(request: Request, raw: bytes, limit: int) -> dict[str, Any]:
    try:
        event = await parse_body(request, raw, limit)
    except Problem as problem:
        raise Problem(400, problem.code, problem.detail) from None
    if not isinstance(event, dict):
        raise Problem(400, "malformed_event", "The body is not an event: it must be an object.")
    return event


async def _stored(partitions: Partitions, webhook_id: str, kind: str, notice: SafetyNotice | None) -> bool:
    """Store the webhook; return whether a partition had not received it. Raises StoreUnavailable.

    A notice is stored in each partition: it may be about the account, and only the workers find out whose end user or
    request it names. All else is only remembered, where that is possible.
    """
    if notice is None:
        for context in partitions.all[:-1]:
            if context.store_watch.answers:
                return await context.notices.store_webhook(webhook_id, kind, notice)
        return await partitions.all[-1].notices.store_webhook(webhook_id, kind, notice)
    storing = [context.notices.store_webhook(webhook_id, kind, notice) for context in partitions.all]
    return any(await asyncio.gather(*storing))


async def _notify_holder(context: AppContext, response_id: str | None) -> None:
    """Have the worker that reads the response check whether it has ended: only that can settle a job."""
    job_id = await context.job_access.of_response(response_id)
    if job_id is not None and response_id is not None:
        await context.notices.notify_response_ended(job_id, response_id)
