"""The checks of `vigil doctor` for Redis, of each partition; and that each store is the partition it is taken for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from worker.cli.doctor.check import DoctorCheck
from worker.cli.doctor.redis_checks import redis_checks
from worker.jobs.errors import StoreUnavailable, UnsafeStore
from worker.settings import Settings
from worker.store.partitions.identity import check_partition
from worker.store.partitions.stores import partitions_open


async def partition_checks(settings: Settings) -> AsyncIterator[DoctorCheck]:
    """Yield the checks of every store; with several, each detail begins with the name."""
    several = len(settings.partitions) > 1
    for one in settings.partitions:
        async for check in redis_checks(settings.of(one)):
            yield replace(check, detail=f"{one.name}; {check.detail}") if several else check
    if settings.redis_url is not None:
        async for check in _identities(settings):
            yield check


async def _identities(settings: Settings) -> AsyncIterator[DoctorCheck]:
    """Yield a problem for each store that is another partition than VIGIL_REDIS_URL says, and one line if none is."""
    fix = "name every store of the deployment in VIGIL_REDIS_URL, home first; see ops/design/partitions.md"
    good = 0
    async with partitions_open(settings, max_connections=1, guarded=False) as stores:
        for one in stores:
            try:
                await check_partition(one.redis, one.settings, remember=False)
                good += 1
            except UnsafeStore as error:
                yield DoctorCheck("partitions", "problem", str(error), fix)
            except StoreUnavailable:
                pass  # the checks of this store have said so
    if good > 1:
        names = ", ".join(one.name for one in settings.partitions)
        yield DoctorCheck("partitions", "ok", f"{names}; each store is the one that it is taken for")
