"""Subscribe to Redis channels over one connection that is re-established for as long as the process lives.

Pub/sub keeps nothing: what is published while nobody is connected is lost. So `on_subscribed` is called each time a
subscription is confirmed, also after a reconnect, and whoever waits for messages reads the state again.
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

from worker.store.connection.key_tag import tag_of
from worker.store.errors import UNAVAILABLE_ERRORS

_PING_AFTER_S: Final = 10.0  # after that much silence the connection is checked with a ping
_MAX_RECONNECT_PAUSE_S: Final = 1.0


class Subscriber:
    """Calls `on_message(channel, message)` and `on_subscribed(channel)`; both must be quick and must not raise."""

    def __init__(
        self, redis: Redis, on_message: Callable[[str, bytes], None], on_subscribed: Callable[[str], None]
    ) -> None:
        pool = redis.connection_pool
        options = {"retry": Retry(NoBackoff(), 0), "retry_on_error": [], "health_check_interval": 0}
        kwargs = {**pool.connection_kwargs, **options, "max_connections": 1}
        self._redis = Redis(connection_pool=ConnectionPool(connection_class=pool.connection_class, **kwargs))
        self._tag = len(tag_of(redis))
        self._on_message, self._on_subscribed = on_message, on_subscribed
        self._wanted: set[str] = set()
        self._wanted_changed, self._connected = asyncio.Event(), asyncio.Event()

    def subscribe(self, *channels: str) -> None:
        """Subscribe to these channels, as soon as Redis can be reached."""
        self._wanted.update(channels)
        self._wanted_changed.set()

    def unsubscribe(self, *channels: str) -> None:
        """Unsubscribe from these channels."""
        self._wanted.difference_update(channels)
        self._wanted_changed.set()

    async def run(self) -> None:
        """Receive messages until cancelled."""
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
        """Run one connection until it fails; ends by raising."""
        pubsub = self._redis.pubsub()
        self._connected.clear()
        failed = ""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._follow(pubsub))
                await self._connected.wait()
                await self._read(pubsub)
        except* UNAVAILABLE_ERRORS as failures:
            failed = type(failures.exceptions[0]).__name__
        finally:
            await pubsub.aclose()
        if failed:  # raised here, because Python before 3.11.4 wraps what is raised inside `except*` in a group
            raise RedisConnectionError(failed)

    async def _follow(self, pubsub: PubSub) -> None:
        """Keep the subscriptions equal to the wanted channels."""
        current: set[str] = set()
        while True:
            self._wanted_changed.clear()
            more, less = self._wanted - current, current - self._wanted
            if more:
                await pubsub.subscribe(*sorted(more))
            if less:
                await pubsub.unsubscribe(*sorted(less))
            current = current - less | more
            self._connected.set()
            await self._wanted_changed.wait()

    async def _read(self, pubsub: PubSub) -> None:
        """Read straight from the connection: every commit passes here, and `get_message` costs twice as much."""
        connection, pinged = pubsub.connection, False
        while True:
            message = await connection.read_response(timeout=_PING_AFTER_S, disconnect_on_error=False)
            if getattr(connection, "is_stale", False):  # it still gets messages, but senders don't count it
                raise RedisConnectionError("another node of the cluster serves the channels")
            match message:
                case None if pinged:
                    raise RedisConnectionError("no answer")
                case None:
                    await pubsub.ping()
                    pinged = True
                    continue
                case [b"message" | b"smessage", channel, data]:
                    self._on_message(channel.decode()[self._tag :], data)
                case [b"subscribe" | b"ssubscribe", channel, _]:
                    self._on_subscribed(channel.decode()[self._tag :])
                case [b"sunsubscribe", channel, _] if channel and channel.decode()[self._tag :] in self._wanted:
                    raise RedisConnectionError("the cluster has moved the channels to another node")
                case _:
                    pass  # the reply to a ping, or the end of a subscription
            pinged = False
