"""The waiting jobs of end users who were shut out are cancelled, with who and why in their trails.

What runs goes on: it was sent already, and its outcome is evidence. Several workers at once are harmless.
"""

from __future__ import annotations

import contextlib

from worker.jobs import events as ev
from worker.jobs.errors import AlreadySettled, RecordUnreadable, Refused
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY
from worker.safety import messages
from worker.store.admission.quarantine import Quarantine
from worker.store.jobs.repository import Jobs

BY = "quarantine"
"""Who asked, in the trail of a job that the quarantine cancelled."""


async def clear(jobs: Jobs, quarantine: Quarantine) -> int:
    """Nothing waits any more of anybody who was shut out; gives how many jobs were cancelled."""
    count = 0
    for person, waiting in await quarantine.pending_cancellations():
        for job_id in waiting:
            with contextlib.suppress(AlreadySettled, Refused, RecordUnreadable):  # an unreadable one is being run
                count += (await jobs.change(job_id, _cancel)).settled
        await quarantine.mark_cancelled(person)
    return count


def shut_out(job: Job) -> list[EventDraft]:
    """The end of a job that waits, because its end user is shut out."""
    billed = any(attempt.response_id for attempt in job.attempts)
    end = ev.Cancelled(upstream_under_way=False, billed=billed, error=messages.job_error("end_user_quarantined"))
    return [(ev.CancelRequested(by=BY), None), (end, None)]


def _cancel(job: Job) -> list[EventDraft]:
    return [] if job.status in UNDER_WAY or job.open_attempts else shut_out(job)
