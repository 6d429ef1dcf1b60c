"""When each API key was last used, to about a minute. It grants nothing, so it has no MAC and no note in the trail."""

from __future__ import annotations

from collections.abc import Mapping

from arq.connections import ArqRedis

from worker.store import keys
from worker.store.errors import store_errors
from worker.store.values import count_of


class KeyUses:
    """The last uses in Redis, by the key's id, in ms."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis

    async def write(self, uses: Mapping[str, int]) -> None:
        """Store that these keys were used last at these times."""
        async with store_errors("note the use of keys", keys.KEY_USES):
            await self._redis.hset(keys.KEY_USES, mapping={key_id: str(at) for key_id, at in uses.items()})

    async def all(self) -> dict[str, int]:
        """Return when each key was used last; no entry for one that never was."""
        async with store_errors("read the use of keys", keys.KEY_USES):
            rows = await self._redis.hgetall(keys.KEY_USES)
        found = {key_id.decode(errors="replace"): count_of(at) for key_id, at in rows.items()}
        return {key_id: at for key_id, at in found.items() if at}
