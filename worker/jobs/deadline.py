"""Which deadline a job runs against, and when: the queue's before the first start or in a hold, then the run's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from worker.jobs.record import Job


class Deadline(NamedTuple):
    """The time at which the job expires as it stands, and the word that says why."""

    kind: Literal["queue_deadline", "run_deadline"]
    at: datetime


def deadline_of(job: Job) -> Deadline | None:
    """The job's deadline; None when it may wait for ever."""
    queue = job.policy.queue_deadline_seconds
    if queue is not None and (job.started_at is None or job.hold is not None):
        return Deadline("queue_deadline", job.created_at + timedelta(seconds=queue))
    if job.started_at is not None:
        return Deadline("run_deadline", job.started_at + timedelta(seconds=job.policy.run_deadline_seconds))
    return None
