"""What every run of a job needs, built once per worker process (`worker/components.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.safety.watch_limits import WatchLimits
from worker.store.admission.pacing import PaceRules
from worker.store.jobs.output_chunks import OutputChunks
from worker.store.jobs.repository import Jobs
from worker.store.provider.durations import DurationCache
from worker.tasks.account_connections import AccountConnections
from worker.tasks.execution.lease_renewal import Leases
from worker.tasks.execution.output_buffer import OutputFlusher
from worker.tasks.execution.reading_pace import ReadingPace


@dataclass(frozen=True, slots=True)
class RunContext:
    """The dependencies shared by all runs; `limits` without `suspect_after`, which each job's policy sets."""

    worker_id: str
    limits: WatchLimits
    allow_unknown_models: bool
    clock: Clock
    catalogue: Catalogue
    jobs: Jobs
    chunks: OutputChunks
    accounts: AccountConnections
    leases: Leases
    flusher: OutputFlusher
    reading: ReadingPace
    durations: DurationCache
    pace: PaceRules
