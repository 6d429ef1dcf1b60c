"""API keys as this process remembers them, for at most three seconds, so that a revoked key is dead within five."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from worker.clock import Clock
from worker.store.apps import ApiKey, Apps

_FRESH_SECONDS: Final = 3.0
_MOST: Final = 10_000


class KeyCache:
    """Looks keys up; unknown keys are never remembered, so that junk can't push out live ones."""

    def __init__(self, apps: Apps, clock: Clock) -> None:
        self._apps, self._clock = apps, clock
        self._known: OrderedDict[bytes, tuple[float, ApiKey]] = OrderedDict()

    def remembered(self, key: str) -> ApiKey | None:
        """The live key behind this text, if it was looked up a moment ago."""
        until, known = self._known.get(_name(key), (0.0, None))
        return known if known is not None and until >= self._clock.monotonic() and not known.revoked_at else None

    async def find(self, key: str) -> ApiKey | None:
        """The live key behind this text, or None."""
        known = self.remembered(key)
        if known is not None:
            return known
        name = _name(key)
        self._known.pop(name, None)
        found = await self._apps.find(key)
        if found is None or found.revoked_at:
            return None
        self._known[name] = (self._clock.monotonic() + _FRESH_SECONDS, found)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)
        return found


def _name(key: str) -> bytes:
    """What a key is remembered by: the key itself is not kept in memory."""
    return hashlib.sha256(key.encode()).digest()
