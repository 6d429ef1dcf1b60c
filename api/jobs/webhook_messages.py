"""The webhook messages of a job as its app sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.responses import MessageView
from worker.store.jobs.stored_job import StoredJob
from worker.store.webhooks.outbox import OutboxMessage


async def message_views(
    request: Request, stored: StoredJob, rows: Sequence[tuple[OutboxMessage, list[Any]]]
) -> list[MessageView]:
    """Return the messages as their app sees them; the URL of a deleted endpoint is no longer known."""
    urls: dict[str, Any] = {"": (stored.private.get("webhook") or {}).get("url")}
    if any(message.endpoint for message, _ in rows):
        endpoints = await with_deadline(request, context_of(request).endpoints.of_app(stored.job.app))
        urls |= {one.id: one.url for one in endpoints}
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
            "deliveries": deliveries,
        }
        for message, deliveries in rows
    ]
