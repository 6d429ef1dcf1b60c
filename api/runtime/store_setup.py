"""Opens the Redis client of the settings, and checks at start that this Redis keeps what it accepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.runtime.store_deadline import with_timeout
from worker.jobs.errors import StoreRefused, StoreUnavailable, UnsafeStore
from worker.redis_address import parse
from worker.settings import Settings
from worker.store.archive.attached import IMPATIENT
from worker.store.connection.cluster_inspection import warn_of_cluster
from worker.store.connection.durability import check_durability
from worker.store.connection.pool import Redis
from worker.store.error_reasons import WRONG_USER
from worker.store.lifecycle.seal_check import count_refused_at_start
from worker.store.partitions.identity import check_store_of
from worker.store.partitions.stores import PartitionStore, open_partitions
from worker.telemetry.events import emit

_CHECK_TIMEOUT_S: Final = 2.0
_MAX_CONNECTIONS: Final = 16  # with the subscriber's, below 20 whatever the load is (`ops/bench/watchers.py`)


def open_stores(settings: Settings) -> list[PartitionStore]:
    """Open the Redis of the settings, or the embedded one: each partition of it, home first. The caller closes them."""
    return open_partitions(settings, max_connections=_MAX_CONNECTIONS, patience=IMPATIENT)


async def check_stores(stores: Sequence[PartitionStore]) -> None:
    """Do what `check_store` does with each; an error names the partition where there are several."""
    for one in stores:
        try:
            await check_store(one.settings, one.redis)
        except (UnsafeStore, StoreRefused) as error:
            if len(stores) == 1:
                raise
            raise UnsafeStore(f"The store {one.partition.name}: {error}") from None


async def check_store(settings: Settings, redis: Redis) -> None:
    """Raise UnsafeStore if this Redis could lose accepted jobs, now or at a restart, and StoreRefused if it does not
    know our user. Return if it can't be reached: the process's StoreWatch reports that, and waits for it.
    """
    if settings.partition.is_home and not settings.encryption_keys:
        emit("encryption.off")
    elif settings.partition.is_home and settings.accept_unsealed:
        emit("encryption.unsealed_accepted")
    try:
        await with_timeout(_CHECK_TIMEOUT_S, check_durability(redis, allow_eviction=settings.allow_eviction))
        await with_timeout(_CHECK_TIMEOUT_S, check_store_of(redis, settings))
        await with_timeout(_CHECK_TIMEOUT_S, warn_of_cluster(redis, parse(settings.store_url)))
        refused = await with_timeout(_CHECK_TIMEOUT_S, count_refused_at_start(redis))
        if refused:
            emit("records.refused", count=refused)
    except StoreRefused as error:
        if error.reason == WRONG_USER:
            raise  # waiting does not help; a missing right is reported by StoreWatch and waited for
    except StoreUnavailable:
        pass  # reported by StoreWatch
