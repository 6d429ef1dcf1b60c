"""The rows of the Jobs page: what a list shows of a job. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from worker.jobs.catalogue import dollars
from worker.jobs.record import Job
from worker.jobs.states import Evidence
from worker.store.jobs.stored_job import StoredJob

_MAX_PAIRS: Final = 4


@dataclass(frozen=True, slots=True)
class RowCheck:
    """The safety checks of a job: `since` while one runs, else how many seconds they lasted together."""

    evidence: str
    since: datetime | None
    seconds: float
    number: int


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in the list. It has no content."""

    id: str
    status: str
    settled: bool
    reason: str | None
    code: str | None
    message: str
    requested_model: str
    served_model: str | None
    check: RowCheck | None
    end_user: str | None
    metadata: tuple[tuple[str, str], ...]
    """The first pairs."""
    more_metadata: int
    created_at: datetime
    finished_at: datetime | None
    seconds: float | None
    cost: str | None
    offered: str | None
    """The model of an open offer."""
    cancel_requested: bool


def row_of(stored: StoredJob) -> JobRow:
    """Return the row of a job."""
    job, private = stored.job, stored.private
    metadata = [(str(key), str(value)) for key, value in (private.get("metadata") or {}).items()]
    return JobRow(
        id=job.id,
        status=str(job.status),
        settled=job.settled,
        reason=job.reason,
        code=job.block.code if job.block else job.error.code if job.error else None,
        message=job.block.advice if job.block else job.error.message if job.error else "",
        requested_model=job.requested_model,
        served_model=job.served_model,
        check=_check_of(job),
        end_user=private.get("end_user"),
        metadata=tuple(metadata[:_MAX_PAIRS]),
        more_metadata=max(0, len(metadata) - _MAX_PAIRS),
        created_at=job.created_at,
        finished_at=job.finished_at,
        seconds=max(0.0, (job.finished_at - job.created_at).total_seconds()) if job.finished_at else None,
        cost=None if job.total_cost is None or not job.attempts else dollars(job.total_cost),
        offered=job.offer.model if job.offer else None,
        cancel_requested=job.cancel_requested_at is not None and not job.settled,
    )


def _check_of(job: Job) -> RowCheck | None:
    if not job.checks:
        return None
    running = () if job.settled else job.open_checks
    strongest = Evidence.SIGNALLED if any(c.evidence is Evidence.SIGNALLED for c in running or job.checks) else None
    lasted = sum(max(0.0, (c.ended_at - c.started_at).total_seconds()) for c in job.checks if c.ended_at)
    return RowCheck(
        evidence=str(strongest or Evidence.SUSPECTED),
        since=min((check.started_at for check in running), default=None),
        seconds=lasted,
        number=len(job.checks),
    )
