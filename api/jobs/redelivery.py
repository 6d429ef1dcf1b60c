"""Sends webhook messages of an app again: one, or all of a job that were not delivered."""

from __future__ import annotations

from api.runtime.context import AppContext
from worker.jobs.errors import Refused
from worker.store.jobs.stored_job import StoredJob
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


async def redeliver_undelivered(context: AppContext, stored: StoredJob) -> int:
    """Send every message of the job again that was not delivered; return how many. Raises what one raises."""
    rows = await context.outbox.of_job(stored.job.id)
    undelivered = [message for message, _ in rows if message.state != "delivered"]
    for message in undelivered:
        await redeliver_message(context, stored.job.app, message)
    return len(undelivered)
