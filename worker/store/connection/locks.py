"""Locks that all processes share: one of them does something, at most once in so many seconds."""

from __future__ import annotations

from typing import Final

from arq.connections import ArqRedis

from worker.store import keys
from worker.store.errors import store_errors

_NO_EXPIRY: Final = -1  # the reply of PTTL for a key that does not expire


async def try_lock(redis: ArqRedis, name: str, seconds: float) -> bool:
    """Return True for one of all processes that try this lock; it is held for so many seconds and never released."""
    async with store_errors("acquire a lock", name):
        if await redis.set(name, "1", nx=True, px=max(1, int(seconds * 1000))):
            return True
        if await redis.pttl(name) == _NO_EXPIRY:
            await redis.delete(name)  # Vigil writes none without an expiry: the next caller may lock it
        return False


async def should_warn(redis: ArqRedis, subject: str, seconds: float) -> bool:
    """Return True for the first of all processes that asks to warn operators of this, once in so many seconds."""
    return await try_lock(redis, keys.warning(subject), seconds)
