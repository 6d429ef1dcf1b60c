"""Tells operators of API keys that end soon: each key once a day, by one of all workers."""

from __future__ import annotations

from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.store.apps import SOON_MS, Apps
from worker.store.connection import locks
from worker.telemetry.events import emit

_LOOK_S: Final = 3600
_TELL_S: Final = 86_400


async def report_expiring_keys(redis: ArqRedis, clock: Clock) -> None:
    """Emit an event for each live key that ends within two weeks, if no worker has looked within the hour."""
    if not await locks.should_warn(redis, "keys", _LOOK_S):
        return
    now = to_ms(clock.now())
    for key in await Apps(redis, clock).list_keys():
        ends_soon = 0 < key.expires_at - now < SOON_MS
        if ends_soon and key.is_live(now) and await locks.should_warn(redis, f"key:{key.id}", _TELL_S):
            emit("key.expiring", app=key.app, what=key.id, seconds=(key.expires_at - now) // 1000)
