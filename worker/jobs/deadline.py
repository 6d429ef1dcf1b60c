"""Determines a deadline: that of the queue before the first start, that of the run after it, the earlier in a hold."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from worker.jobs.record import Job


class Deadline(NamedTuple):
    """The time at which the job expires in its current state, and which deadline that is."""

    kind: Literal["queue_deadline", "run_deadline"]
    at: datetime


def deadline_of(job: Job) -> Deadline | None:
    """Return the job's deadline, or None if it may wait forever."""
    queue, found = job.policy.queue_deadline_seconds, list[Deadline]()
    if job.started_at is not None:  # a hold does not stop it: an attempt that began after it would end at once
        found.append(Deadline("run_deadline", job.started_at + timedelta(seconds=job.policy.run_deadline_seconds)))
    if queue is not None and (job.started_at is None or job.hold is not None):
        found.append(Deadline("queue_deadline", job.created_at + timedelta(seconds=queue)))
    return min(found, key=lambda deadline: deadline.at, default=None)
