"""Open the stores of a deployment: one client for each partition, with its own settings and mark."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.object_store.opening import Patience
from worker.partitions import Partition
from worker.settings import Settings
from worker.store.archive.attached import attach_archive
from worker.store.connection.partition_code import set_partition_code
from worker.store.connection.pool import connect, keyring_from
from worker.store.connection.store_guard import StoreGuard
from worker.store.jobs.output_archive import output_archive_from


@dataclass(frozen=True, slots=True)
class PartitionStore:
    """One partition: a client of its store, and the settings with its address and its files alone."""

    settings: Settings
    redis: ArqRedis

    @property
    def partition(self) -> Partition:
        """Return which one it is."""
        return self.settings.partition


def open_partition(
    settings: Settings, *, max_connections: int, guarded: bool = True, patience: Patience | None = None
) -> PartitionStore:
    """Return the store of these settings, which are for one partition. It connects on first use; the caller closes it.

    `guarded`: refuse any store but the one that this machine knows. `patience`: with the archive. Raises SettingsError.
    """
    guard = StoreGuard(settings.mark_file, Clock().random_bytes) if guarded else None
    redis = connect(
        settings.store_url,
        keyring=keyring_from(settings),
        guard=guard,
        archive=output_archive_from(settings),
        max_connections=max_connections,
        compact=settings.compact_records,
    )
    set_partition_code(redis, settings.partition.code)
    attach_archive(redis, settings, patience)
    return PartitionStore(settings, redis)


def open_partitions(
    settings: Settings, *, max_connections: int, guarded: bool = True, patience: Patience | None = None
) -> list[PartitionStore]:
    """Return every store of the deployment, home first."""
    return [
        open_partition(settings.of(one), max_connections=max_connections, guarded=guarded, patience=patience)
        for one in settings.partitions
    ]


@asynccontextmanager
async def partitions_open(
    settings: Settings, *, max_connections: int, guarded: bool = True
) -> AsyncIterator[Sequence[PartitionStore]]:
    """Yield every store of the deployment, home first, and close them at the end of the block."""
    async with AsyncExitStack() as stack:
        stores = open_partitions(settings, max_connections=max_connections, guarded=guarded)
        for one in stores:
            stack.push_async_callback(one.redis.aclose)
        yield stores
