"""Pin apps to partitions: where an app is, it stays. Home keeps the pins; who serves requests does not need them.

An app is pinned when its first key is made. One whose record is in a partition already is pinned there, so adding a
partition moves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from arq.connections import ArqRedis

from worker.jobs.errors import Refused
from worker.partitions import choose
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.partitions.stores import PartitionStore


class Pins:
    """The pins of a deployment."""

    def __init__(self, stores: Sequence[PartitionStore]) -> None:
        self._stores = {one.partition.name: one for one in stores}
        self._home = stores[0]

    async def all(self) -> dict[str, str]:
        """Return the partition of every app that is pinned."""
        async with store_errors("list the pins", keys.PINS):
            rows = await self._home.redis.hgetall(keys.PINS)
        return {app.decode(errors="replace"): name.decode(errors="replace") for app, name in rows.items()}

    async def find(self, app: str) -> PartitionStore | None:
        """Return where an app is: by its pin, or by its record; None if it is nowhere.

        Raises StoreUnavailable if a store that may have it does not answer, Refused if its pin names no store.
        """
        if len(self._stores) == 1:
            return self._home if await has_app(self._home.redis, app) else None
        async with store_errors("look up the pin", keys.PINS):
            pin = await self._home.redis.hget(keys.PINS, app)
        if pin is not None:
            return self._named(pin.decode(errors="replace"), app)
        having = await asyncio.gather(*(has_app(one.redis, app) for one in self._stores.values()))
        found = [one for one, has in zip(self._stores.values(), having, strict=True) if has]
        if len(found) > 1:
            names = " and ".join(one.partition.name for one in found)
            detail = f"The app {app} is in {names}; revoke its keys in one of them with `vigil keys --partition NAME`."
            raise Refused("app_in_two_partitions", detail, 409)
        return found[0] if found else None

    async def place(self, app: str, wanted: str | None, new_apps: Sequence[str]) -> PartitionStore:
        """Return where an app is, and pin it. A new one is put where `wanted` says, else into one of `new_apps`.

        Raises Refused if it is in another one than `wanted`, and what `find` raises.
        """
        if wanted is not None and wanted not in self._stores:
            raise Refused(
                "partition_not_found", f"There is no partition {wanted}; known: {', '.join(self._stores)}.", 404
            )
        found = await self.find(app)
        name = found.partition.name if found is not None else wanted or choose(app, new_apps or list(self._stores))
        if len(self._stores) > 1:
            name = await self._pin(app, name)
        if wanted not in (None, name):
            raise Refused("app_is_pinned", f"The app {app} is in the partition {name}, and stays there.", 409)
        return self._named(name, app)

    async def _pin(self, app: str, name: str) -> str:
        """Pin the app unless it is pinned; return where it is pinned."""
        async with store_errors("pin the app", keys.PINS):
            # first: after a crash here no app is pinned to the name, and its store must still be named
            await self._home.redis.hset(keys.PINNED, name, "1")
            await self._home.redis.hsetnx(keys.PINS, app, name)
            pin = await self._home.redis.hget(keys.PINS, app)
        return pin.decode(errors="replace") if pin is not None else name

    def _named(self, name: str, app: str) -> PartitionStore:
        found = self._stores.get(name)
        if found is None:
            detail = f"The app {app} is pinned to {name}, which VIGIL_REDIS_URL does not name; name that store again."
            raise Refused("partition_not_found", detail, 409)
        return found


async def has_app(redis: ArqRedis, app: str) -> bool:
    """Return whether this store has the app."""
    async with store_errors("look up the app", keys.app(app)):
        return bool(await redis.exists(keys.app(app)))
