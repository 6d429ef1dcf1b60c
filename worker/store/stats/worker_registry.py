"""Record the heartbeats of workers, and list the workers that are alive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NotRequired

from arq.connections import ArqRedis
from typing_extensions import TypedDict

from worker.clock import Clock
from worker.jobs.timestamps import iso_ms
from worker.jobs.view_schema import Iso, documented
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.store_schema import EARLIER, STORE_SCHEMA
from worker.store.values import readable, reporting_unreadable

_STALE_AFTER_S: Final = 60


@documented
class WorkerHeartbeat(TypedDict):
    """A worker process that has reported recently."""

    id: str
    running: int
    beat_at: Iso
    draining: bool
    slots: NotRequired[int]
    """How many jobs it may run at once."""
    accounts: NotRequired[list[str]]
    """The accounts at the provider that it has."""
    circuits: NotRequired[list[str]]
    """The scopes of their circuits."""
    store_schema: NotRequired[int]
    """The last migration of the store that it knows."""


async def record_heartbeat(redis: ArqRedis, clock: Clock, worker_id: str, state: Mapping[str, Any]) -> None:
    """Record that this worker is alive now, with its state (slots, draining, …)."""
    async with store_errors("note the heartbeat"):
        beat_at = iso_ms(clock.now())
        heartbeat = {"id": worker_id, "beat_at": beat_at, "store_schema": STORE_SCHEMA, **state}
        await redis.hset(keys.WORKERS, worker_id, json.dumps(heartbeat))


async def remove_heartbeat(redis: ArqRedis, worker_id: str) -> None:
    """Remove this worker from the registry: it has stopped."""
    async with store_errors("forget the heartbeat"):
        await redis.hdel(keys.WORKERS, worker_id)


async def workers(redis: ArqRedis, clock: Clock) -> list[WorkerHeartbeat]:
    """Return the state of each worker whose last heartbeat is younger than a minute."""
    rows = list[bytes]()
    with reporting_unreadable():
        async with store_errors("list the workers", keys.WORKERS):
            rows = await redis.hvals(keys.WORKERS)
    oldest = clock.now() - timedelta(seconds=_STALE_AFTER_S)
    found = [one for _, one in readable(((keys.WORKERS, row) for row in rows), _parse_heartbeat)]
    return sorted((w for w in found if datetime.fromisoformat(w["beat_at"]) > oldest), key=lambda w: str(w["id"]))


def _are_names(body: WorkerHeartbeat) -> bool:
    lists: tuple[Any, Any] = body.get("accounts", []), body.get("circuits", [])
    return all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)


def _parse_heartbeat(raw: bytes) -> WorkerHeartbeat:
    body: WorkerHeartbeat = json.loads(raw)
    if (
        datetime.fromisoformat(body["beat_at"]).tzinfo is None
        or not isinstance(body.get("slots", 0), int)
        or type(body.get("store_schema", EARLIER)) is not int
        or not _are_names(body)
    ):
        raise ValueError("not a heartbeat")
    return {**body, "id": str(body["id"])}
