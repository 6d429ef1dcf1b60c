"""Check that each store is the partition that VIGIL_REDIS_URL says it is, so that no process takes one for another.

A store of a deployment with several remembers its name and whether it is home; a deployment with one store writes
nothing. Home remembers to which names apps are pinned, so none of them can be left out.
"""

from __future__ import annotations

import json
from typing import Any

from arq.connections import ArqRedis

from worker.jobs.errors import RecordUnreadable, UnsafeStore
from worker.settings import Settings
from worker.store import keys
from worker.store.connection.replay_check import check_replay
from worker.store.errors import store_errors


async def check_partition(redis: ArqRedis, settings: Settings, *, remember: bool = True) -> None:
    """Raise UnsafeStore unless the store behind this client is the partition of these settings.

    `remember`: give a new one its name, if the deployment has several. Raises StoreUnavailable.
    """
    own, names = settings.partition, [one.name for one in settings.partitions]
    try:
        new = {"name": own.name, "home": own.is_home} if len(names) > 1 and remember else None
        known = await _known(redis, new)
        pinned = await _pinned(redis) if known is not None and own.is_home else []
    except RecordUnreadable as error:
        raise UnsafeStore(
            f"The key {error.key} of the store {own.name} can't be read; restore it from a backup"
        ) from None
    if known is None:
        return
    if known["home"] is not own.is_home or (len(names) > 1 and known["name"] != own.name):
        role = "home" if own.is_home else "a store beside home"
        was = f"the home, {known['name']}," if known["home"] else f"the partition {known['name']}"
        raise UnsafeStore(
            f"VIGIL_REDIS_URL names a store {own.name} as {role}, but that store is {was} of such a deployment. "
            "Name all of its stores as before, home first; ops/design/partitions.md"
        )
    missing = sorted(set(pinned) - {*names, known["name"]})
    if missing:
        raise UnsafeStore(
            f"Apps are pinned to {', '.join(missing)}, which VIGIL_REDIS_URL does not name: their keys, jobs and trail "
            "are there. Name that store again; ops/design/partitions.md"
        )


async def check_store_of(redis: ArqRedis, settings: Settings) -> None:
    """Raise UnsafeStore if this store is another partition, or would lose at a restart what it holds."""
    await check_partition(redis, settings)
    await check_replay(redis, settings.store_url, allow=settings.allow_lossy_restart)


async def _known(redis: ArqRedis, own: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what the store remembers of itself; have it remember `own` if it remembers nothing."""
    async with store_errors("say which partition it is", keys.PARTITION):
        raw = await redis.get(keys.PARTITION)
        if raw is None and own is not None:
            await redis.set(keys.PARTITION, json.dumps(own), nx=True)
            raw = await redis.get(keys.PARTITION)
    if raw is None:
        return None
    try:
        body = json.loads(raw)
        found = {"name": str(body["name"]), "home": bool(body["home"])}
    except (ValueError, LookupError, TypeError):
        raise RecordUnreadable(keys.PARTITION, "wrong_shape") from None
    return found


async def _pinned(redis: ArqRedis) -> list[str]:
    async with store_errors("say where apps are pinned", keys.PINNED):
        return [name.decode(errors="replace") for name in await redis.hkeys(keys.PINNED)]
