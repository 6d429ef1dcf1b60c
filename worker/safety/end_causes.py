"""Names the cause of a job's end by deadline: what it was held for, or why its last attempt failed.

Pure. "A deadline passed" says when the waiting ended, not what was waited for; who reads the error needs the latter.
"""

from __future__ import annotations

from typing import Final, Literal

from worker.jobs.record import Job, JobError
from worker.jobs.states import PAUSE_SCOPE, UNDER_WAY, Purpose
from worker.jobs.view_schema import WaitReason
from worker.safety.messages import job_error

LIMITS: Final[dict[WaitReason, str]] = {
    "provider_rate": "the rate limit of the provider, or of models.toml",
    "account_checks": "its turn, as the provider checks most requests of this account",
    "model_concurrency": "another job of the model to end",
    "end_user_concurrency": "another job of its end user to end",
}


def expiry_error(
    job: Job, deadline: Literal["queue_deadline", "run_deadline"], limit: WaitReason | None = None
) -> JobError:
    """Return the error of a job whose deadline has passed, with the cause of its waiting if there is one.

    Its type stays that of a deadline; code, provider and advice are those of the cause. `limit`: the limit at which it
    waited; then only the message says so, as the limit is no fault.
    """
    passed, cause = job_error(deadline), cause_of_waiting(job)
    if limit is not None:
        return passed.evolve(message=f"{passed.message} It was waiting for {LIMITS[limit]}.")
    if cause is None:
        return passed
    why = "It was held until then" if job.hold is not None else "Its last attempt had failed"
    return JobError(
        type=passed.type,
        code=cause.code,
        message=f"{passed.message} {why}: {cause.message}",
        advice=cause.advice,
        provider=cause.provider,
    )


def cause_of_waiting(job: Job) -> JobError | None:
    """Return what a waiting job waits for; None if it runs, or has never been kept from running."""
    if job.status in UNDER_WAY:
        return None
    errors = [a.error for a in job.attempts if a.error is not None and a.purpose not in (Purpose.RACE, Purpose.DRAFT)]
    hold = job.hold
    if hold is None:
        last = job.attempts[-1] if job.attempts else None
        return errors[-1] if errors and last is not None and last.error is not None else None
    if hold.scope.startswith(PAUSE_SCOPE):
        return job_error("paused")  # the note of the pause is the hold's reason, and no code
    own = next((error for error in reversed(errors) if error.code == hold.reason), None)
    return own or job_error(hold.reason, provider=hold.provider)
