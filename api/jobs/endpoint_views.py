"""Standing webhook endpoints as their app sees them, with since when they fail and when they are disabled."""

from __future__ import annotations

from collections.abc import Sequence

from api.runtime.context import AppContext
from api.schema.responses import WebhookEndpointView
from worker.clock import from_ms
from worker.store.webhooks.endpoints import Endpoint
from worker.store.webhooks.failing_endpoints import FailingEndpoint, FailurePatience


async def endpoint_views(context: AppContext, endpoints: Sequence[Endpoint]) -> list[WebhookEndpointView]:
    """Return these endpoints of one app as it sees them."""
    failing = await context.endpoints.failing(endpoints)
    patience = FailurePatience(context.settings.webhook_disable_days)
    return [_view(one, failing.get(one.id), patience) for one in endpoints]


def _view(one: Endpoint, failing: FailingEndpoint | None, patience: FailurePatience) -> WebhookEndpointView:
    due = patience.disabled_at(failing) if failing is not None and one.state == "active" else None
    return {
        "id": one.id,
        "url": one.url,
        "events": one.events,
        "payload": one.payload,
        "description": one.description,
        "state": one.state,
        "created_at": from_ms(one.created_at),
        "failing_since": None if failing is None else from_ms(failing.since_ms),
        "failed_tries": 0 if failing is None else failing.tries,
        "disables_at": None if due is None else from_ms(due),
    }
