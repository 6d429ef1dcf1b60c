"""Decides whether a job may be run again as a new job. Pure."""

from __future__ import annotations

from typing import Final

from worker.jobs.errors import Refused
from worker.jobs.record import Job
from worker.jobs.states import Status

RERUNNABLE: Final = (Status.FAILED, Status.EXPIRED, Status.CANCELLED)
"""How a job must have ended."""
MAY_BE_BLOCKED: Final = frozenset({"failed_after_check", "may_be_withheld"})
"""The codes of failures that may be blocks: whoever runs such a job again should have looked at its prompt."""
_UNSEEN: Final = (
    "The provider may have withheld this job's content. Look at its prompt; then run it again by its id, or name the "
    "code in the filter."
)
_BLOCKED: Final = "The provider withheld this job's content; a block is never routed around, so it is not sent again."
_SERIES_BLOCKED: Final = "The provider withheld the content of a rerun of the same job; so it is not sent again."


def refusal_of_rerun(job: Job, *, series_blocked: bool) -> Refused | None:
    """Return why the job can't be run again, or None. `series_blocked`: a rerun of the same content was blocked."""
    if job.status is Status.BLOCKED:
        return Refused("blocked", _BLOCKED)
    if series_blocked:
        return Refused("blocked", _SERIES_BLOCKED)
    if not job.settled:
        return Refused("not_settled", "The job is not over yet; cancel it first, or wait for its end.")
    if job.status not in RERUNNABLE:
        return Refused("completed", "The job completed; only failed, expired and cancelled jobs are run again.")
    if job.content_removed is not None:
        detail = "The job's content was deleted, so it can't be run again; submit it anew with its content."
        return Refused("content_deleted", detail, 410)
    return None


def refusal_of_unseen_rerun(job: Job) -> Refused | None:
    """Return why the job can't be run again together with others that nobody named, or None."""
    if job.error is None or job.error.code not in MAY_BE_BLOCKED:
        return None
    return Refused("may_be_blocked", _UNSEEN)
