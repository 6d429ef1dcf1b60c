"""Says what a safety check that runs now is, and when the job will be treated differently if nothing changes.

Pure, from the record alone: the run writes what its delay rule plans into the check (`Check.next_action`).
"""

from __future__ import annotations

from worker.jobs.deadline import deadline_of
from worker.jobs.record import Job
from worker.jobs.states import Evidence, Purpose
from worker.jobs.view_schema import JobNextActionView

_FASTER = frozenset({Purpose.FASTER, Purpose.RACE, Purpose.DRAFT})
_SIGNALLED = (
    "The provider is running an additional safety check on this request: this is no block and no finding, and nothing "
    "needs to be done, because the job goes on by itself."
)
_SUSPECTED = (
    "The model has been silent for long, which may be an additional safety check or only a slow answer: nothing "
    "needs to be done, because the job goes on by itself."
)


def check_message(job: Job) -> str | None:
    """Return one sentence on the check that runs now, or None if none does."""
    if not job.open_checks:
        return None
    signalled = any(check.evidence is Evidence.SIGNALLED for check in job.open_checks)
    return _SIGNALLED if signalled else _SUSPECTED


def next_action(job: Job) -> JobNextActionView | None:
    """Return what is done next about the check that runs now, when, and by which rule; None if none runs.

    That is what the delay rule has planned, until it has acted; else the job's deadline, at which it expires.
    """
    if not job.open_checks:
        return None
    acted = job.offer is not None or any(a.purpose in _FASTER for a in job.attempts)
    planned = [check.next_action for check in job.open_checks if check.next_action is not None and not acted]
    first, deadline = min(planned, key=lambda action: action.at, default=None), deadline_of(job)
    if first is not None and (deadline is None or first.at < deadline.at):
        return {"action": first.action, "at": first.at, "because": first.because}
    return None if deadline is None else {"action": "expire", "at": deadline.at, "because": deadline.kind}
