"""Sends webhook messages of a job again."""

from __future__ import annotations

from api.runtime.context import AppContext
from api.web.problems import Problem
from worker.store.jobs.stored_job import StoredJob
from worker.store.webhooks.outbox import OutboxMessage


async def redeliver_message(context: AppContext, stored: StoredJob, message: OutboxMessage) -> OutboxMessage:
    """Send the message again now and return it. Raises a Problem (409) if its endpoint is gone, and Refused."""
    if message.endpoint:
        endpoints = await context.endpoints.of_app(stored.job.app)
        if not any(one.id in (message.endpoint, *message.shared_with) and one.state != "gone" for one in endpoints):
            raise Problem(409, "endpoint_gone", "The endpoint is gone; PATCH its state to active first.")
    return await context.outbox.redeliver(stored.job.id, message.id)


async def redeliver_undelivered(context: AppContext, stored: StoredJob) -> int:
    """Send every message of the job again that was not delivered; return how many. Raises what one raises."""
    rows = await context.outbox.of_job(stored.job.id)
    undelivered = [message for message, _ in rows if message.state != "delivered"]
    for message in undelivered:
        await redeliver_message(context, stored, message)
    return len(undelivered)
