"""Loads the input and output of a job for OpenAI's Response object. That has no member for an output that can't be
read, and must not look empty instead, so ContentDamaged is raised.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.openai_compat.response import ResponseSource
from api.runtime.context import AppContext
from worker.jobs.errors import ContentDamaged, RecordUnreadable
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.jobs.view import INPUT, mark_unreadable
from worker.store.envelope import OUTPUT
from worker.store.jobs.stored_job import StoredJob
from worker.store.values import report_unreadable


async def load_input(context: AppContext, stored: StoredJob) -> tuple[StoredJob, dict[str, Any] | None]:
    """Return (the job, its input); if that can't be read, None, and the job is marked. Raises KeyMissing."""
    try:
        return stored, await context.jobs.load_request(stored.job.id)
    except RecordUnreadable as error:
        report_unreadable(error)
    except ContentDamaged:
        pass
    return replace(stored, private=mark_unreadable(stored.private, INPUT)), None


async def load_output(context: AppContext, job: Job) -> dict[str, Any] | None:
    """Return the output, or None if there is none or it was removed. Raises KeyMissing, ContentDamaged."""
    if not job.settled:
        return None
    try:
        found = await context.jobs.load_output(job.id)
    except RecordUnreadable as error:
        report_unreadable(error)
        raise ContentDamaged(job.id, OUTPUT) from None
    if found is None and job.status is Status.COMPLETED and job.content_removed is None:
        raise ContentDamaged(job.id, OUTPUT)
    return found


async def load_source(context: AppContext, stored: StoredJob) -> ResponseSource:
    """Return the job with all that its Response object is made of. Raises KeyMissing, ContentDamaged."""
    stored, job_input = await load_input(context, stored)
    return ResponseSource(stored.job, stored.private, job_input, await load_output(context, stored.job))
