"""Check how much Redis accepts: whether it takes writes at all, and whether a value is too large for it.

A value that is too large is refused before it is sent, where the server tells its limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from worker.jobs.errors import ContentTooLarge
from worker.store import keys
from worker.store.commands import Command
from worker.store.errors import store_errors

_MOST_BYTES_OF_CHARACTER: Final = 4  # in UTF-8
ALWAYS_TAKEN: Final = 2**20 - 1024
"""Bytes of one value that every server accepts: proto-max-bulk-len can't be set below 1 MiB."""


async def check_writable(redis: ArqRedis) -> None:
    """Return when Redis accepts a write. Raises StoreUnavailable when it is unreachable, full or read-only."""
    async with store_errors("take a write"):
        await redis.set(keys.PROBE, "1", px=60_000)


def largest_argument(commands: Sequence[Command]) -> int:
    """Return the size in bytes of the largest argument of these commands; if all are small, a bound that is faster."""
    longest = max([len(a) for command in commands for a in command if isinstance(a, (bytes, str))], default=0)
    bound = _MOST_BYTES_OF_CHARACTER * longest
    if bound <= ALWAYS_TAKEN:
        return bound
    texts = [len(a.encode()) for command in commands for a in command if isinstance(a, str)]
    return max(longest, max(texts, default=0))


async def must_fit(redis: ArqRedis, size: int) -> None:
    """Raise ContentTooLarge when the server accepts no value of `size` bytes; pass where CONFIG is forbidden."""
    if size <= ALWAYS_TAKEN:
        return
    try:
        found = await redis.config_get("proto-max-bulk-len")
    except RedisError:
        return  # a managed Redis forbids CONFIG
    limit = int(found.get("proto-max-bulk-len") or 0)
    if 0 < limit < size:
        raise ContentTooLarge(size, limit)


async def must_fit_when_empty(redis: ArqRedis, size: int) -> None:
    """Raise ContentTooLarge when this Redis, full now, could not hold `size` bytes even if it were empty."""
    try:
        info = await redis.info("memory")
    except RedisError:
        return
    limit = int(info.get("maxmemory") or 0)
    if limit and size > limit - int(info.get("used_memory_startup") or 0):
        raise ContentTooLarge(size, limit)
