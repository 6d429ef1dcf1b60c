"""What the `vigil audit` commands share: the way to the trail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from worker.cli.processes import with_redis
from worker.settings import Settings
from worker.store.connection.pool import Redis, connect
from worker.store.envelope import Vault

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_trail(settings: Settings, work: Callable[[Redis], Awaitable[T]]) -> T:
    """`work` on the Redis of the settings; the embedded server is started for the moment if none runs."""

    async def go() -> T:
        async with with_redis(settings) as ours:
            redis = connect(ours.redis_url or "", vault=Vault.of(ours.encryption_keys), max_connections=4)
            try:
                return await work(redis)
            finally:
                await redis.aclose()

    return asyncio.run(go())
