"""Webhooks: the app's endpoints, its messages with each try, and what to do when a receiver was away."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from typing import Final
from urllib.parse import urlencode

from api.console.console_routes import ConsoleRoutes, Done
from api.console.page_response import Page
from api.console.visit import Form, Visit
from api.jobs.acting import record_act
from api.jobs.endpoint_views import endpoint_views
from api.jobs.redelivery import redeliver_named
from api.runtime.store_deadline import with_deadline
from api.web.problems import Problem
from worker.clock import from_ms, to_ms
from worker.store.webhooks.delivery_log import MAX_REDELIVERED, TriedMessage
from worker.webhooks.signing import new_secret

routes = ConsoleRoutes()
_PAGE: Final = 25
_PLACE: Final = re.compile(r"([0-9]{1,15})\.(msg_[0-9A-Za-z]{1,64})")
_SINCE: Final = {"hour": 3_600, "day": 86_400, "week": 7 * 86_400}
_SECRET_BYTES: Final = 32


@routes.page("/webhooks")
async def show_webhooks(visit: Visit) -> Page:
    """Show the endpoints, and the messages by their last try."""
    context, app = visit.context, visit.key.app
    failed, place = visit.query.get("failed") == "1", _PLACE.fullmatch(visit.query.get("before", ""))
    before = (int(place[1]), place[2]) if place else None
    endpoints = await with_deadline(visit.request, context.endpoints.of_app(app)) if visit.may("submit") else []
    log = context.delivery_log
    rows, following = await with_deadline(visit.request, log.page(app, _PAGE, failed=failed, before=before))
    urls = {one.id: one.url for one in endpoints}
    values = {
        "endpoints": await with_deadline(visit.request, endpoint_views(context, endpoints)),
        "messages": [_message(one, urls) for one in rows],
        "failed": failed,
        "failed_count": await with_deadline(visit.request, log.count_failed(app)),
        "is_first": before is None,
        "next": _address(failed=failed, before=following) if following else None,
        "since": list(_SINCE),
        "most": MAX_REDELIVERED,
    }
    return Page("webhooks.html", values)


@routes.action("/webhooks/redeliver", "submit")
async def redeliver_one(visit: Visit, form: Form) -> Done:
    """Send one message again."""
    await with_deadline(visit.request, redeliver_named(visit.context, visit.key.app, form.text("message")))
    return Done(_address(failed=form.text("failed") == "1"), "redelivered_one")


@routes.action("/webhooks/redeliver-failed", "submit")
async def redeliver_failed(visit: Visit, form: Form) -> Done:
    """Send again what failed in the chosen time, a bounded number of messages."""
    seconds, since = _SINCE.get(form.text("since")), 0
    if seconds is not None:
        since = to_ms(visit.context.clock.now() - timedelta(seconds=seconds))
    done = await visit.context.delivery_log.redeliver_failed(visit.key.app, since)
    return Done("/webhooks", "redelivered_some_left" if done.left else "redelivered", done.sent)


@routes.action("/webhooks/endpoints/{endpoint_id}/rotate", "submit")
async def rotate_secret(visit: Visit, _: Form) -> Page:
    """Give the endpoint a new secret, and show it this once."""
    context, secret = visit.context, new_secret(visit.context.clock.random_bytes(_SECRET_BYTES))
    named = {"endpoint_id": _endpoint_id(visit)}
    await record_act(visit.request, visit.key, "webhook_endpoint.secret_rotated", via="console", **named)
    rotating = context.endpoints.rotate(visit.key.app, _endpoint_id(visit), secret, visit.key.id)
    endpoint = await with_deadline(visit.request, rotating)
    (shown,) = await with_deadline(visit.request, endpoint_views(context, [endpoint]))
    return Page("webhook_secret.html", {"endpoint": shown, "secret": secret})


@routes.action("/webhooks/endpoints/{endpoint_id}/state", "submit")
async def set_state(visit: Visit, form: Form) -> Done:
    """Pause an endpoint, or make it active again."""
    state = form.text("state")
    if state not in {"active", "paused"}:
        raise Problem(422, "validation_error", "An endpoint can be made active or paused.")
    named = {"endpoint_id": _endpoint_id(visit), "state": state}
    await record_act(visit.request, visit.key, "webhook_endpoint.changed", via="console", **named)
    changing = visit.context.endpoints.change(
        visit.key.app,
        _endpoint_id(visit),
        lambda one: replace(one, state="paused" if state == "paused" else "active"),
        visit.key.id,
    )
    await with_deadline(visit.request, changing)
    return Done("/webhooks", "endpoint_paused" if state == "paused" else "endpoint_active")


def _endpoint_id(visit: Visit) -> str:
    return str(visit.request.path_params["endpoint_id"])


def _message(one: TriedMessage, urls: dict[str, str]) -> dict[str, object]:
    message = one.message
    return {
        "id": message.id,
        "job_id": message.job_id,
        "type": message.type,
        "state": message.state,
        "endpoint": message.endpoint,
        "url": urls.get(message.endpoint),
        "tried_at": from_ms(one.tried_ms),
        "next_try_at": message.next_try_at if message.state == "pending" else None,
        "tries": one.receipts,
        "last": one.receipts[-1] if one.receipts else {},
    }


def _address(*, failed: bool, before: tuple[int, str] | None = None) -> str:
    query = {"failed": "1"} if failed else {}
    if before is not None:
        query["before"] = f"{before[0]}.{before[1]}"
    return "/webhooks" + (f"?{urlencode(query)}" if query else "")
