"""Which processes use this store now, and which schema of it each of them knows.

Workers say so in their heartbeats, APIs in a key of their own. An API of a release that does not say so is seen only
while requests of SDKs wait in it (`vigil:apis`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import StoreUnavailable
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.stats import worker_registry
from worker.store.store_schema import EARLIER, STORE_SCHEMA

_BEAT_S: Final = 10.0
_ALIVE_MS: Final = 60_000


class LiveProcess(NamedTuple):
    """A process that uses the store, and the schema of the store that it knows; EARLIER if it does not tell one."""

    kind: Literal["worker", "API"]
    id: str
    store_schema: int


class ApiHeartbeat:
    """Tells that an API process lives, and which schema of the store it knows."""

    def __init__(self, redis: ArqRedis, process: str) -> None:
        """`process`: its name, the same as that of its callers."""
        self._renew = script(redis, "jobs/renew_process")
        self._member = f"{process} {STORE_SCHEMA}"

    async def run(self) -> None:
        """Say every ten seconds that the process lives, until cancelled; then that it has ended."""
        try:
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await self._say(_ALIVE_MS)
                await asyncio.sleep(_BEAT_S)
        finally:
            with contextlib.suppress(StoreUnavailable):
                await self._say(0)

    async def _say(self, alive_ms: int) -> None:
        async with store_errors("say that this API lives", keys.API_HEARTBEATS):
            await self._renew(keys=[keys.API_HEARTBEATS], args=[self._member, alive_ms])


async def live_processes(redis: ArqRedis, clock: Clock) -> list[LiveProcess]:
    """Return the processes of which something was heard within a minute. Raises RecordUnreadable, StoreUnavailable.

    `clock`: near that of Redis.
    """
    now = to_ms(clock.now())
    names = (keys.API_HEARTBEATS, keys.API_PROCESSES)
    rows = list[Sequence[bytes]]()
    for name in names:
        async with store_errors("list the APIs", name):
            rows.append(await redis.zrangebyscore(name, f"({now}", "+inf"))
    schemas = {process: _number(number) for process, _, number in (_text(one).partition(" ") for one in rows[0])}
    waiting = {_text(one) for one in rows[1]}
    workers = [
        LiveProcess("worker", one["id"], one.get("store_schema", EARLIER))
        for one in await worker_registry.workers(redis, clock)
    ]
    apis = [LiveProcess("API", name, schemas.get(name, EARLIER)) for name in sorted(schemas.keys() | waiting)]
    return workers + apis


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _number(text: str) -> int:
    return int(text) if text.isdigit() and len(text) < 10 else EARLIER  # noqa: PLR2004
