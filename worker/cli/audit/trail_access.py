"""What the `vigil audit` commands share: access to the audit trail in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from worker.cli.processes import with_redis
from worker.clock import Clock
from worker.settings import Settings
from worker.store.archive.attached import attach_archive
from worker.store.connection.pool import Redis, connect, keyring_from
from worker.store.connection.store_guard import StoreGuard

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_trail(settings: Settings, work: Callable[[Redis], Awaitable[T]], *, writes: bool = False) -> T:
    """Run `work` on the Redis of the settings and return its result; starts the embedded server if it does not run.

    `writes`: refuse any store but the one that this machine knows. Reading is allowed in any.
    """

    async def go() -> T:
        async with with_redis(settings) as actual:
            guard = StoreGuard(actual.mark_file, Clock().random_bytes) if writes else None
            vault = keyring_from(actual)
            redis = connect(actual.redis_url or "", keyring=vault, guard=guard, max_connections=4)
            attach_archive(redis, actual)
            try:
                return await work(redis)
            finally:
                await redis.aclose()

    return asyncio.run(go())
