"""A cache of API keys. An entry lives for at most three seconds, so that a revoked key is refused within five."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final

from api.runtime.key_use_log import KeyUseLog
from worker.clock import Clock, to_ms
from worker.store.admission.app_retention import NOTHING_OWN, AppRetention
from worker.store.apps import ApiKey, Apps

_TTL_S: Final = 3.0
_MAX_ENTRIES: Final = 10_000
_Entries = OrderedDict[bytes, tuple[float, ApiKey]]


class KeyCache:
    """Looks up API keys. Unknown keys are not cached, so that invalid ones can't displace valid ones."""

    def __init__(self, apps: Apps, clock: Clock, uses: KeyUseLog) -> None:
        self._apps, self._clock, self._uses = apps, clock, uses
        self._retentions = OrderedDict[str, AppRetention | None]()
        self._by_text, self._by_id = _Entries(), _Entries()  # apart: an id, which is no secret, is not a key

    def cached(self, key: str) -> ApiKey | None:
        """Return the live key for this text if the cache has it, without waiting."""
        return self._known(self._by_text, _digest(key))

    async def find(self, key: str) -> ApiKey | None:
        """Return the live key for this text, or None if there is none."""
        found = await self.look_up(key)
        return found if found is not None and self.is_live(found) else None

    async def look_up(self, key: str) -> ApiKey | None:
        """Return the key for this text, live or not, or None if there is none."""
        digest = _digest(key)
        known = self._known(self._by_text, digest)
        return known if known is not None else self._keep(self._by_text, digest, await self._apps.find(key))

    async def find_by_id(self, key_id: str) -> ApiKey | None:
        """Return the live key with this id, or None if there is none."""
        digest = _digest(key_id)
        known = self._known(self._by_id, digest)
        if known is not None:
            return known
        found = self._keep(self._by_id, digest, await self._apps.find_by_id(key_id))
        return found if found is not None and self.is_live(found) else None

    def retention_of(self, app: str) -> AppRetention:
        """Return the own retention times of an app of which a key was used lately; none for another one."""
        return self._retentions.get(app) or NOTHING_OWN

    def is_live(self, key: ApiKey) -> bool:
        """Return whether the key may be used now."""
        return not key.revoked_at and (not key.expires_at or not key.is_expired(to_ms(self._clock.now())))

    def _known(self, entries: _Entries, digest: bytes) -> ApiKey | None:
        expires_at, known = entries.get(digest, (0.0, None))
        now = self._clock.monotonic()
        if known is None or expires_at < now or not self.is_live(known):
            return None
        self._uses.note(known.id, now)
        return known

    def _keep(self, entries: _Entries, digest: bytes, found: ApiKey | None) -> ApiKey | None:
        """Replace the entry by the key that was found, if it is live; return that key."""
        entries.pop(digest, None)
        if found is None or not self.is_live(found):
            return found
        now = self._clock.monotonic()
        self._uses.note(found.id, now)
        self._retentions[found.app] = found.retention
        while len(self._retentions) > _MAX_ENTRIES:
            self._retentions.popitem(last=False)
        entries[digest] = (now + _TTL_S, found)
        while len(entries) > _MAX_ENTRIES:
            entries.popitem(last=False)
        return found


def _digest(key: str) -> bytes:
    """Return the name of a cache entry: the key itself is not kept in memory."""
    return hashlib.sha256(key.encode()).digest()
