"""The check of `vigil doctor` for a store in a cluster: who has it, who takes over, and what would stop it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from worker.cli.doctor.check import DoctorCheck
from worker.redis_address import Address
from worker.store.connection.cluster_inspection import inspect_cluster
from worker.store.connection.pool import Redis

_FIX: Final = "see the table of ops/design/clusters.md"


async def cluster_checks(redis: Redis, address: Address) -> AsyncIterator[DoctorCheck]:
    """Yield one check for a store in a cluster, none for another one."""
    state = await inspect_cluster(redis, address)
    if state is None:
        return
    primary, *replicas = [node.name for node in state.nodes]
    named = f"the store is in slot {state.slot} on {primary}, replicas: {', '.join(replicas) or 'none'}"
    if state.problems:
        yield DoctorCheck("cluster", "warning", f"{named}; {'; '.join(state.problems)}", _FIX)
    else:
        yield DoctorCheck("cluster", "ok", named)
