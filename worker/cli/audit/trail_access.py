"""What the `vigil audit` commands share: the way to the trail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from worker.cli.processes import with_redis
from worker.clock import Clock
from worker.settings import Settings
from worker.store.connection.pool import Redis, connect
from worker.store.connection.store_guard import StoreGuard
from worker.store.envelope import MasterKeyring

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_trail(settings: Settings, work: Callable[[Redis], Awaitable[T]], *, writes: bool = False) -> T:
    """`work` on the Redis of the settings; the embedded server is started for the moment if none runs.

    `writes`: only to the store that this machine knows; a proof may read any.
    """

    async def go() -> T:
        async with with_redis(settings) as ours:
            guard = StoreGuard(ours.mark_file, Clock().dice) if writes else None
            keyring = MasterKeyring.from_settings(ours.encryption_keys)
            redis = connect(ours.redis_url or "", keyring=keyring, guard=guard, max_connections=4)
            try:
                return await work(redis)
            finally:
                await redis.aclose()

    return asyncio.run(go())
