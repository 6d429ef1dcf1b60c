"""The response bodies of batches and groups of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from api.schema.responses import ProblemView
from worker.jobs.view_schema import JobView, documented


@documented
class BatchRowView(TypedDict):
    """The outcome of one job of a batch: `job` if it was accepted, else `problem`."""

    index: int
    """The job's place in the batch, from 0."""
    status: int
    job: NotRequired[JobView]
    problem: NotRequired[ProblemView]
    idempotent_replayed: NotRequired[bool]
    """True if the job had been submitted before under the same idempotency key."""


class GroupCountsView(TypedDict):
    """How many jobs of the group have each status."""

    queued: int
    scheduled: int
    running: int
    checking: int
    completed: int
    blocked: int
    failed: int
    cancelled: int
    expired: int


@documented
class GroupView(TypedDict):
    """How a group of jobs stands. `GET /v1/jobs?group=` lists its jobs."""

    id: str
    object: Literal["group"]
    created_at: datetime
    ended_at: datetime | None
    """When the last of its jobs ended; null while one is open."""
    total: int
    open: int
    """Jobs that have not ended."""
    counts: GroupCountsView
    urls: dict[str, str]
