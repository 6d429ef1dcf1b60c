"""What an OpenAI-shaped answer is made of: what was asked and what came back. It has no member for an output that can't
be read, so such a response is not told of as if it were empty: ContentDamaged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from api.runtime.context import AppContext
from worker.jobs.errors import ContentDamaged, RecordUnreadable
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.jobs.view import INPUT, mark_unreadable
from worker.store.envelope import ANSWER
from worker.store.jobs.repository import StoredJob
from worker.store.values import tell


async def with_asked(parts: AppContext, stored: StoredJob) -> tuple[StoredJob, dict[str, Any] | None]:
    """(The job, what was asked); the job says so where that can't be read. Raises KeyMissing."""
    try:
        return stored, await parts.jobs.asked(stored.job.id)
    except RecordUnreadable as error:
        tell(error)
    except ContentDamaged:
        pass
    return replace(stored, private=mark_unreadable(stored.private, INPUT)), None


async def answer_of(parts: AppContext, job: Job) -> dict[str, Any] | None:
    """What came back; None where nothing has, or it was removed. Raises KeyMissing, ContentDamaged."""
    if not job.settled:
        return None
    try:
        found = await parts.jobs.answer(job.id)
    except RecordUnreadable as error:
        tell(error)
        raise ContentDamaged(job.id, ANSWER) from None
    if found is None and job.status is Status.COMPLETED and job.content_removed is None:
        raise ContentDamaged(job.id, ANSWER)
    return found
