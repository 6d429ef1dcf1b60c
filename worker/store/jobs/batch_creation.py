"""Creates all jobs of a batch, or none. What a single job is made of is in `job_creation.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from worker.jobs.errors import Refused, VigilError
from worker.store.jobs.job_creation import QUARANTINED, JobCreation
from worker.store.jobs.stored_job import NewJob, StoredJob
from worker.telemetry.job_events import emit_committed

MAX_JOBS: Final = 100
"""So many jobs take one script some tens of milliseconds, in which Redis does nothing else."""


class JobOfBatchRefused(VigilError):
    """Job number `index` (from 0) of a batch is refused, so that none of the batch was created."""

    def __init__(self, index: int, refused: Refused) -> None:
        super().__init__(refused.detail)
        self.index, self.refused = index, refused


async def create_all(creation: JobCreation, new: Sequence[NewJob]) -> list[tuple[StoredJob, bool]]:
    """Create the jobs in one script; return each, and whether an earlier request with its idempotency key created it.

    All are of one app, with one meter and one quota, and no two have the same idempotency key. Durable when it returns.
    Raises JobOfBatchRefused when one of them is refused, else what `JobCreation.submit` raises; then none was created.
    """
    found: dict[int, tuple[StoredJob, bool]] = {}
    while left := [index for index in range(len(new)) if index not in found]:
        prepared = [await creation.prepare(new[index]) for index in left]
        reply = await creation.submit_all(prepared)
        if reply.verdict == "quarantined":
            raise JobOfBatchRefused(left[reply.number], Refused("end_user_quarantined", QUARANTINED, 403))
        for number, remembered in reply.seen.items():
            index, one = left[number], new[left[number]]
            try:
                found[index] = await creation.load_repeated(one.fact.app, remembered, one.fingerprint), True
            except Refused as refused:
                raise JobOfBatchRefused(index, refused) from None
        if reply.verdict == "created":
            for index, made in zip(left, prepared, strict=True):
                emit_committed(None, made.job, made.trail)
                found[index] = StoredJob(made.job, new[index].private), False
    return [found[index] for index in range(len(new))]
