"""Send webhook messages of an app again: one, or those of a time whose last try failed."""

from __future__ import annotations

from api.runtime.context import AppContext
from worker.jobs.errors import Refused
from worker.store.webhooks.outbox import OutboxMessage


async def redeliver_message(context: AppContext, app: str, message: OutboxMessage) -> OutboxMessage:
    """Make a message of the app due now and return it. Raises Refused when its endpoint is gone."""
    if message.endpoint:
        endpoints = await context.endpoints.of_app(app)
        if not any(one.id in (message.endpoint, *message.shared_with) and one.state != "gone" for one in endpoints):
            raise Refused("endpoint_gone", "The endpoint is gone; set its state to active first.", 409)
    return await context.outbox.redeliver(message.job_id, message.id)


async def redeliver_named(context: AppContext, app: str, message_id: str) -> OutboxMessage:
    """Make the app's message with this id due now and return it. Raises Refused, also for another app's."""
    found = (await context.outbox.named([message_id], receipts=False)).get(message_id)
    if found is None or found[0].app != app:
        raise Refused("message_not_found", "There is no such message; it may be older than the retention time.", 404)
    return await redeliver_message(context, app, found[0])
