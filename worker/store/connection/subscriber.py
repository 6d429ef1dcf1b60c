"""One connection that hears Redis channels, for as long as the process lives and whatever happens to Redis.

Pub/sub forgets: what is said while nobody is connected is gone. So each time a channel is (again) heard for certain,
`resumed` is called, and whoever waits reads again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.store.connection.errors import UNAVAILABLE_ERRORS

_PING_AFTER_S: Final = 10.0  # after that much silence we ask whether the connection still lives
_MAX_RECONNECT_PAUSE_S: Final = 1.0


class Subscriber:
    """Calls `heard(channel, message)` and `resumed(channel)`; both must be quick and must not raise."""

    def __init__(self, redis: Redis, heard: Callable[[str, bytes], None], resumed: Callable[[str], None]) -> None:
        pool = redis.connection_pool
        ours = {"retry": Retry(NoBackoff(), 0), "retry_on_error": [], "health_check_interval": 0}
        kwargs = {**pool.connection_kwargs, **ours, "max_connections": 1}
        self._redis = Redis(connection_pool=ConnectionPool(connection_class=pool.connection_class, **kwargs))
        self._on_message, self._on_subscribed = heard, resumed
        self._wanted: set[str] = set()
        self._wanted_changed, self._connected = asyncio.Event(), asyncio.Event()

    def subscribe(self, *channels: str) -> None:
        """These channels are heard as soon as Redis can be reached."""
        self._wanted.update(channels)
        self._wanted_changed.set()

    def unsubscribe(self, *channels: str) -> None:
        """These channels are not needed any more."""
        self._wanted.difference_update(channels)
        self._wanted_changed.set()

    async def run(self) -> None:
        """Listens until cancelled."""
        pause = 0.0
        try:
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await self._session()
                except UNAVAILABLE_ERRORS:
                    lasted = asyncio.get_running_loop().time() - began
                    pause = (
                        0.05 if lasted > _MAX_RECONNECT_PAUSE_S else min(_MAX_RECONNECT_PAUSE_S, max(0.05, pause * 2))
                    )
                    await asyncio.sleep(pause)
        finally:
            await self._redis.connection_pool.disconnect()

    async def _session(self) -> None:
        """One connection's life; ends by raising."""
        pubsub = self._redis.pubsub()
        self._connected.clear()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._follow(pubsub))
                await self._connected.wait()
                await self._read(pubsub)
        except* UNAVAILABLE_ERRORS as failures:
            raise RedisConnectionError(type(failures.exceptions[0]).__name__) from None
        finally:
            await pubsub.aclose()

    async def _follow(self, pubsub: PubSub) -> None:
        """Keeps what is subscribed equal to what is wanted."""
        have: set[str] = set()
        while True:
            self._wanted_changed.clear()
            more, less = self._wanted - have, have - self._wanted
            if more:
                await pubsub.subscribe(*sorted(more))
            if less:
                await pubsub.unsubscribe(*sorted(less))
            have = have - less | more
            self._connected.set()
            await self._wanted_changed.wait()

    async def _read(self, pubsub: PubSub) -> None:
        """Straight from the connection: every commit passes here, and `get_message` costs twice as much."""
        connection, asked = pubsub.connection, False
        while True:
            message = await connection.read_response(timeout=_PING_AFTER_S, disconnect_on_error=False)
            match message:
                case None if asked:
                    raise RedisConnectionError("no answer")
                case None:
                    await pubsub.ping()
                    asked = True
                    continue
                case [b"message", channel, data]:
                    self._on_message(channel.decode(), data)
                case [b"subscribe", channel, _]:
                    self._on_subscribed(channel.decode())
                case _:
                    pass  # an answer to our ping, or the end of a subscription
            asked = False
