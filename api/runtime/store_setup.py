"""Opens the Redis client of the settings, and checks at start that this Redis keeps what it accepts."""

from __future__ import annotations

from typing import Final

from api.runtime.store_deadline import with_timeout
from worker.clock import Clock
from worker.jobs.errors import StoreRefused, StoreUnavailable
from worker.settings import Settings
from worker.store.archive.attached import IMPATIENT, attach_archive
from worker.store.connection.durability import check_durability
from worker.store.connection.pool import Redis, connect, keyring_from
from worker.store.connection.replay_check import check_replay
from worker.store.connection.store_guard import StoreGuard
from worker.store.error_reasons import WRONG_USER
from worker.store.lifecycle.seal_check import count_refused_at_start
from worker.telemetry.events import emit

_CHECK_TIMEOUT_S: Final = 2.0
_MAX_CONNECTIONS: Final = 16  # with the subscriber's, below 20 whatever the load is (`ops/bench/watchers.py`)


def open_store(settings: Settings) -> Redis:
    """Return a client for the Redis of the settings, or for the embedded one."""
    vault = keyring_from(settings)
    guard = StoreGuard(settings.mark_file, Clock().random_bytes)
    redis = connect(
        settings.store_url,
        keyring=vault,
        guard=guard,
        max_connections=_MAX_CONNECTIONS,
        compact=settings.compact_records,
    )
    attach_archive(redis, settings, IMPATIENT)
    return redis


async def check_store(settings: Settings, redis: Redis) -> None:
    """Raise UnsafeStore if this Redis could lose accepted jobs, now or at a restart, and StoreRefused if it does not
    know our user. Return if it can't be reached: the process's StoreWatch reports that, and waits for it.
    """
    if not settings.encryption_keys:
        emit("encryption.off")
    elif settings.accept_unsealed:
        emit("encryption.unsealed_accepted")
    try:
        await with_timeout(_CHECK_TIMEOUT_S, check_durability(redis, allow_eviction=settings.allow_eviction))
        checking = check_replay(redis, settings.store_url, allow=settings.allow_lossy_restart)
        await with_timeout(_CHECK_TIMEOUT_S, checking)
        refused = await with_timeout(_CHECK_TIMEOUT_S, count_refused_at_start(redis))
        if refused:
            emit("records.refused", count=refused)
    except StoreRefused as error:
        if error.reason == WRONG_USER:
            raise  # waiting does not help; a missing right is reported by StoreWatch and waited for
    except StoreUnavailable:
        pass  # reported by StoreWatch
