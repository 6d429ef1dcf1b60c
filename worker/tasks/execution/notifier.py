"""The worker's ear: one subscription that hears "something is ready", "look at this job" and a word for its holder.

A message may be lost; nothing depends on it but speed: claims poll, and renewals carry what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from arq.connections import ArqRedis

from worker.store import channels
from worker.store.errors import UNAVAILABLE_ERRORS

_AGAIN = 0.2


class Notifier:
    """Listens until cancelled, through every loss of Redis."""

    def __init__(
        self,
        redis: ArqRedis,
        wake: Callable[[], None],
        look: Callable[[str], None],
        tell: Callable[[str, str], None],
    ) -> None:
        self._redis, self._wake, self._look, self._tell = redis, wake, look, tell

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """`ready` is set when the subscription stands for the first time."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(channels.WAKE, channels.CONTROL)
                    if ready is not None:
                        ready.set()
                    self._wake()  # something may have been said while we were deaf
                    while True:
                        message = await pubsub.get_message(timeout=5.0)
                        if message is None:
                            continue
                        if message["channel"].decode() == channels.WAKE:
                            self._wake()
                            continue
                        job_id, _, word = message["data"].decode(errors="replace").partition(" ")
                        if word:
                            self._tell(job_id, word)
                        else:
                            self._look(job_id)
            except UNAVAILABLE_ERRORS:
                await asyncio.sleep(_AGAIN)
