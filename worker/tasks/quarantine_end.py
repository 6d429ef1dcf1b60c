"""The facts that end a waiting job whose end user is in quarantine: for its run, and for the sweep."""

from __future__ import annotations

from typing import Final

from worker.jobs import events as ev
from worker.jobs.billed import bill_of
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.safety import messages

CANCELLED_BY: Final = "quarantine"
"""Who asked for the cancellation, in the trail of such a job."""


def quarantine_drafts(job: Job) -> list[EventDraft]:
    """Return the facts that cancel the job, as asked for by the quarantine."""
    bill = bill_of(job.attempts)
    end = ev.Cancelled(upstream_under_way=False, **bill, error=messages.job_error("end_user_quarantined"))
    return [(ev.CancelRequested(by=CANCELLED_BY), None), (end, None)]
