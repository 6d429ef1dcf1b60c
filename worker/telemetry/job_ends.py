"""Names the cause of a job's abnormal end for the people on call; None for every other end.

Pure. An answer, a block, a cancellation and a fault of the request itself are no incidents. Neither is an end whose
cause has an issue of its own: an account at fault, lost access, a bug, a record that can't be read, a pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from worker.jobs.errors import RETRYABLE
from worker.jobs.record import Job, JobError
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, Status
from worker.safety.messages import MESSAGES

_PROVIDERS_FAULT: Final = RETRYABLE | {Outcome.LOST}
_PROVIDERS_CODES: Final = frozenset(
    {"attempts_exhausted", "cancelled_upstream", "data_residency_mismatch", "edge_refused", "region_unsupported"}
)
_OF_CHECKS: Final = frozenset({"failed_after_check", "may_be_withheld"})
"""Codes of failures that may be blocks: as little an error as a block."""
_OTHER_ISSUES: Final = frozenset({"internal_error", "record_unreadable", "content_unreadable", "answer_too_large"})
_SIDE_PURPOSES: Final = frozenset({Purpose.RACE, Purpose.DRAFT})
_families: dict[str, str] = {}


def set_families(families: Mapping[str, str]) -> None:
    """Know from now on to which family each of these models belongs; every other model is "other"."""
    _families.clear()
    _families.update(families)


def end_of(before: Job | None, job: Job) -> tuple[str, Mapping[str, object]] | None:
    """Return (the cause, the fields that describe the end) of a job that has ended abnormally just now, or None."""
    if before is None or before.settled:
        return None
    cause = _cause_of(before, job)
    if cause is None or job.error is None:
        return None
    seconds = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else None
    fields = {
        "job_id": job.id,
        "app": job.app,
        "model": job.requested_model,
        "family": _families.get(job.requested_model, "other"),
        "status": job.status.value,
        "code": _listed(job.error),
        "account": job.attempts[-1].account if job.attempts else None,
        "attempts": len(job.attempts),
        "seconds": seconds,
    }
    return cause, {name: value for name, value in fields.items() if value is not None}


def _cause_of(before: Job, job: Job) -> str | None:
    match job.status:
        case Status.FAILED:
            return "job-failed" if _provider_failed(job) else None
        case Status.EXPIRED:
            return _cause_of_expiry(before, job)
        case _:
            return None


def _provider_failed(job: Job) -> bool:
    code = job.error.code if job.error is not None else ""
    if code in _OTHER_ISSUES or code in _OF_CHECKS:
        return False
    outcomes = [a.outcome for a in job.attempts if a.purpose not in _SIDE_PURPOSES]
    return code in _PROVIDERS_CODES or (bool(outcomes) and outcomes[-1] in _PROVIDERS_FAULT)


def _cause_of_expiry(before: Job, job: Job) -> str | None:
    if job.error is not None and job.error.code == "paused":
        return None
    last = job.checks[-1] if job.checks else None
    if last is not None and last.evidence is Evidence.SIGNALLED and last.ended_by in (None, CheckEnd.TIMED_OUT):
        return "job-checked"
    return "job-expired" if job.attempts and before.hold is None else "job-waited"


def _listed(error: JobError) -> str:
    """Return the error's code if Vigil lists it, else its type: a provider may send any number of codes."""
    return error.code if error.code in MESSAGES else error.type
