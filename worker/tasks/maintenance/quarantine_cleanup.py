"""Cancels the waiting jobs of end users in quarantine, with who and why in their trails.

A running job goes on: its request was sent already, and its outcome is evidence. Several workers may do this at once.
"""

from __future__ import annotations

import contextlib

from worker.jobs.errors import AlreadySettled, RecordUnreadable, Refused
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.repository import Jobs
from worker.tasks.quarantine_end import quarantine_drafts


async def cancel_quarantined_jobs(jobs: Jobs, quarantine: Quarantine) -> int:
    """Cancel every waiting job of an end user in quarantine, and return how many there were."""
    count = 0
    for end_user, waiting in await quarantine.pending_cancellations():
        for job_id in waiting:
            with contextlib.suppress(AlreadySettled, Refused, RecordUnreadable):  # an unreadable one is being run
                count += (await jobs.change(job_id, _cancel)).settled
        await quarantine.mark_cancelled(end_user)
    return count


def _cancel(job: Job) -> list[EventDraft]:
    return [] if job.status in UNDER_WAY or job.open_attempts else quarantine_drafts(job)
