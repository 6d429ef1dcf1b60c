"""A cache of API keys. An entry lives for at most three seconds, so that a revoked key is refused within five."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from worker.clock import Clock
from worker.store.apps import ApiKey, Apps

_TTL_S: Final = 3.0
_MAX_ENTRIES: Final = 10_000


class KeyCache:
    """Looks up API keys. Unknown keys are not cached, so that invalid ones can't displace valid ones."""

    def __init__(self, apps: Apps, clock: Clock) -> None:
        self._apps, self._clock = apps, clock
        self._entries: OrderedDict[bytes, tuple[float, ApiKey]] = OrderedDict()

    def cached(self, key: str) -> ApiKey | None:
        """Return the live key for this text if the cache has it, without waiting."""
        expires_at, known = self._entries.get(_digest(key), (0.0, None))
        return known if known is not None and expires_at >= self._clock.monotonic() and not known.revoked_at else None

    async def find(self, key: str) -> ApiKey | None:
        """Return the live key for this text, or None if there is none."""
        known = self.cached(key)
        return known if known is not None else self._keep(_digest(key), await self._apps.find(key))

    async def find_by_id(self, key_id: str) -> ApiKey | None:
        """Return the live key with this id, or None if there is none."""
        known = self.cached(key_id)  # an id is never the text of a key
        return known if known is not None else self._keep(_digest(key_id), await self._apps.find_by_id(key_id))

    def _keep(self, digest: bytes, found: ApiKey | None) -> ApiKey | None:
        """Replace the entry by the key that was found; return it if it is live."""
        self._entries.pop(digest, None)
        if found is None or found.revoked_at:
            return None
        self._entries[digest] = (self._clock.monotonic() + _TTL_S, found)
        while len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)
        return found


def _digest(key: str) -> bytes:
    """Return the name of a cache entry: the key itself is not kept in memory."""
    return hashlib.sha256(key.encode()).digest()
