"""The worker's one subscription: a job is ready, a job's holder should look, a control message for a job's holder.

A message may be lost, and only speed is lost with it: claims poll, and renewals bring what the API asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arq.connections import ArqRedis

from worker.store import channels
from worker.store.connection.subscriber import Subscriber
from worker.tasks.execution.lease_renewal import Leases


class Notifier:
    """Passes on what is published, until cancelled and through every loss of Redis."""

    def __init__(self, redis: ArqRedis, wake: Callable[[], None], leases: Leases) -> None:
        self._wake, self._leases = wake, leases
        self._subscribed: set[str] = set()
        self._ready = asyncio.Event()
        self._subscriber = Subscriber(redis, self._on_message, self._on_subscribed)
        self._subscriber.subscribe(channels.WAKE, channels.CONTROL)

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Listen until cancelled; `ready` is set once all channels are subscribed to for the first time."""
        self._ready = ready or self._ready
        await self._subscriber.run()

    def _on_subscribed(self, channel: str) -> None:
        self._subscribed.add(channel)
        if self._subscribed == {channels.WAKE, channels.CONTROL}:
            self._ready.set()
        self._wake()  # a message may have been lost before

    def _on_message(self, channel: str, data: bytes) -> None:
        if channel == channels.WAKE:
            self._wake()
            return
        job_id, _, text = data.decode(errors="replace").partition(" ")
        if text:
            self._leases.forward(job_id, text)
        else:
            self._leases.renew_soon(job_id)
