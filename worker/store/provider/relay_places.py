"""Bound the relayed requests that an app has under way in the whole deployment: all apps share the workers' slots.

A place is taken before a request is queued for a worker. The worker that sends the request keeps the place, and gives
it back at the end, also when who asked has left; a place that nobody gives back ends by itself.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import StoreUnavailable
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors

MAX_RUNNING: Final = 4
"""Requests of an app that workers send at a time; a worker has slots for four times as many."""
MAX_WAITING: Final = 12
"""Requests of an app that wait for a place; one more is refused."""
_POLL_S: Final = 0.1
_BEAT_MS: Final = 5_000
_GRACE_MS: Final = 5_000
_ID_BYTES: Final = 16


class PlacesTaken(Exception):
    """The app has as many requests under way and waiting as it may."""


class RelayPlaces:
    """The places in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._take: Any = script(redis, "provider/relay_place")

    def new_name(self) -> str:
        """Return the name of a new request; the names of later ones sort behind it."""
        return f"{to_ms(self._clock.now()):013d}{self._clock.random_bytes(_ID_BYTES).hex()}"

    async def take(self, app: str, name: str, seconds: float) -> None:
        """Return once the request has a place, which lasts for so many seconds unless a worker keeps it.

        Raises PlacesTaken if too many wait already, or if no place was free within `seconds`.
        """
        settled = False
        try:
            async with asyncio.timeout(seconds):
                verdict = await self._ask(app, name, seconds, MAX_RUNNING)
                while verdict == b"WAIT":
                    await asyncio.sleep(_POLL_S)
                    verdict = await self._ask(app, name, seconds, MAX_RUNNING)
                settled = True
        except TimeoutError:
            raise PlacesTaken from None
        finally:
            if not settled:  # also if this call was cancelled while it was given a place
                with suppress(StoreUnavailable):
                    await asyncio.shield(self.give_back(app, name))
        if verdict == b"FULL":
            raise PlacesTaken

    async def keep(self, app: str, name: str, seconds: float) -> None:
        """Let the request have its place for so many seconds from now on, also if it had none."""
        await self._ask(app, name, seconds, 0)

    async def give_back(self, app: str, name: str) -> None:
        """Let another request of the app have the place of this one."""
        async with store_errors("give a place back"), self._redis.pipeline(transaction=True) as pipe:
            for key in _names_of(app):
                pipe.zrem(key, name)
            await pipe.execute()

    async def _ask(self, app: str, name: str, seconds: float, max_running: int) -> bytes:
        args = [name, int(seconds * 1000) + _GRACE_MS, _BEAT_MS, max_running, MAX_WAITING]
        async with store_errors("accept the request"):
            verdict: bytes = await self._take(keys=_names_of(app), args=args)
        return verdict


def _names_of(app: str) -> list[str]:
    return [keys.relayed(kind, app) for kind in ("running", "waiting")]
