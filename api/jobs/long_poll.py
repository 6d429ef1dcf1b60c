"""Waits until a job reaches a status: long polls and `Prefer: wait`. Must not know how a response looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.runtime.context import AppContext
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout
from worker.store.jobs.stored_job import StoredJob


async def wait_until(
    context: AppContext, stored: StoredJob, reached: Callable[[str], bool], seconds: float
) -> StoredJob:
    """Return the job once `reached(status)`, or in its current state after `seconds` or when the process ends."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    with context.broadcaster.watch(stored.job.id) as watcher:
        stored = await _reload(context, stored)
        while not reached(stored.job.status):
            notification = await watcher.next(end - loop.time())
            if notification is None or notification.closing:
                return await _reload(context, stored)
            if notification.status is None or reached(notification.status):
                stored = await _reload(context, stored)
    return stored


async def _reload(context: AppContext, stored: StoredJob) -> StoredJob:
    return await with_timeout(STORE_TIMEOUT_S, context.jobs.load(stored.job.id, locked=True)) or stored
