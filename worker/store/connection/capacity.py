"""How much Redis takes: what is too large for it is found before it is sent, where the server says its bounds.

Must not know: what is done with content that does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from arq.connections import ArqRedis
from redis.exceptions import RedisError

from worker.jobs.errors import ContentTooLarge
from worker.store.commands import Command

ALWAYS_TAKEN: Final = 2**20 - 1024
"""Bytes of one value: proto-max-bulk-len can't be set below 1 MiB, so less needs no question."""


def largest_argument(commands: Sequence[Command]) -> int:
    """Bytes of the largest word of these commands."""
    words = (word for command in commands for word in command)
    return max((len(word) if isinstance(word, bytes) else len(str(word).encode()) for word in words), default=0)


async def must_fit(redis: ArqRedis, size: int) -> None:
    """ContentTooLarge when the server takes no value of `size` bytes; where it may not be asked, it is not known."""
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
    """ContentTooLarge when `size` bytes are more than a Redis that is full now could hold if it were empty."""
    try:
        info = await redis.info("memory")
    except RedisError:
        return
    most = int(info.get("maxmemory") or 0)
    if most and size > most - int(info.get("used_memory_startup") or 0):
        raise ContentTooLarge(size, most)
