"""Requests that the API has a worker send to the provider at once, for the API has no key of the provider.

Request and reply are sealed under the id of the request, which alone crosses the queue. A worker takes a request out
when it begins, so none is sent twice; who asked may get no reply, then.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from arq.connections import ArqRedis
from arq.jobs import ResultNotFound, SerializationError

from worker.clock import Clock
from worker.store import keys
from worker.store.connection.pool import keyring_of
from worker.store.errors import store_errors
from worker.store.provider.relay_places import RelayPlaces

RELAY_FUNCTION: Final = "relay_request"
"""The name of the worker's task."""
_POLL_INTERVAL_S: Final = 0.05
_KEEP_REPLY_S: Final = 60


class RelayedRequests:
    """The requests in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._keyring = redis, keyring_of(redis)
        self.places = RelayPlaces(redis, clock)

    async def send(self, name: str, request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """Have a worker send a request that has a place; return its reply, or None if none came within `seconds`."""
        sealed = self._keyring.seal_named(_sealed_as("request", name), request)
        async with store_errors("accept the request"):
            await self._redis.set(keys.relayed("request", name), sealed, px=int(seconds * 1000))
            job = await self._redis.enqueue_job(RELAY_FUNCTION, name, _expires=seconds)
            try:
                async with asyncio.timeout(seconds):
                    if job is None or await job.result(poll_delay=_POLL_INTERVAL_S) is not True:
                        return None
            except (TimeoutError, ResultNotFound, SerializationError):
                return None
        return await self._take("reply", name)

    async def take(self, name: str) -> dict[str, Any] | None:
        """Take a request out; None if another worker has, or nobody waits for it any more."""
        return await self._take("request", name)

    async def reply(self, name: str, reply: dict[str, Any]) -> None:
        """Store the reply to a request for who waits for it."""
        sealed = self._keyring.seal_named(_sealed_as("reply", name), reply)
        async with store_errors("store a reply"):
            await self._redis.set(keys.relayed("reply", name), sealed, ex=_KEEP_REPLY_S)

    async def _take(self, kind: str, name: str) -> dict[str, Any] | None:
        key = keys.relayed(kind, name)
        async with store_errors("take out a request", key), self._redis.pipeline(transaction=True) as pipe:
            pipe.get(key)
            pipe.delete(key)
            raw, _ = await pipe.execute()
        found = self._keyring.unseal_named(_sealed_as(kind, name), raw)
        return found if isinstance(found, dict) else None


def _sealed_as(kind: str, name: str) -> str:
    return f"relayed:{kind}:{name}"
