"""Waiting for a job to get somewhere: long polls and `Prefer: wait`. Must not know how an answer looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.runtime.context import AppContext
from api.runtime.store_deadline import SECONDS, within
from worker.store.jobs.stored_job import StoredJob


async def wait_until(parts: AppContext, stored: StoredJob, enough: Callable[[str], bool], seconds: float) -> StoredJob:
    """The job once `enough(status)`, or as it stands after `seconds` or at our own shutdown."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    with parts.hub.watch(stored.job.id) as watcher:
        stored = await _again(parts, stored)
        while not enough(stored.job.status):
            note = await watcher.next(until - loop.time())
            if note is None or note.closing:
                return await _again(parts, stored)
            if note.status is None or enough(note.status):
                stored = await _again(parts, stored)
    return stored


async def _again(parts: AppContext, stored: StoredJob) -> StoredJob:
    return await within(SECONDS, parts.jobs.load(stored.job.id, locked=True)) or stored
