"""What every run of a job needs, built once per worker process (`worker/components.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.safety.watch_limits import WatchLimits
from worker.store.admission.circuit_breaker import CircuitBreaker
from worker.store.admission.pacing import PaceRules
from worker.store.jobs.output_chunks import OutputChunks
from worker.store.jobs.repository import Jobs
from worker.store.provider.durations import DurationCache
from worker.tasks.access_prober import AccessProber
from worker.tasks.execution.lease_renewal import Leases
from worker.tasks.execution.output_buffer import OutputFlusher
from worker.upstream.call import Mode
from worker.upstream.client import Provider


@dataclass(frozen=True, slots=True)
class RunContext:
    """The dependencies shared by all runs; `limits` without `suspect_after`, which each job's policy sets.

    `regional`: the provider processes in one region, which costs more.
    """

    worker_id: str
    mode: Mode
    limits: WatchLimits
    allow_unknown_models: bool
    regional: bool
    clock: Clock
    catalogue: Catalogue
    jobs: Jobs
    circuit: CircuitBreaker
    chunks: OutputChunks
    provider: Provider
    access: AccessProber
    leases: Leases
    flusher: OutputFlusher
    durations: DurationCache
    pace: PaceRules
