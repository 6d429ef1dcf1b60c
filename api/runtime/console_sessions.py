"""Sessions of the console: who is logged in.

What was looked up is kept for four seconds, so a session or key that another process ended is refused
within these. Sessions that are in use are looked up anew together: one read, however many pages are open.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from api.runtime.key_cache import KeyCache
from api.runtime.shared_call import SharedCall
from worker.clock import Clock, to_ms
from worker.store.apps import ApiKey
from worker.store.console_access import LINK_PREFIX, ConsoleAccess, LiveSession

_TTL_S: Final = 4.0
_IN_USE_S: Final = 15.0
_MAX_KNOWN: Final = 5_000
_MAX_TOGETHER: Final = 500


class ConsoleSession(NamedTuple):
    """A live session. `csrf` is sent with every action; it is derived from the token and reveals nothing of it."""

    token: str
    key: ApiKey
    csrf: str


@dataclass(slots=True)
class _Known:
    """A session as it was looked up last, and when it was used last."""

    token: str
    found: LiveSession
    looked_up_at: float
    used_at: float


class ConsoleSessions:
    """Begins, finds and ends sessions."""

    def __init__(self, access: ConsoleAccess, keys: KeyCache, clock: Clock) -> None:
        self._access, self._keys, self._clock = access, keys, clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looking = SharedCall(self._look_up_together)

    async def find(self, token: str) -> ConsoleSession | None:
        """Return the live session of this token; None if it is over or its API key was revoked.

        Raises RecordUnreadable, also for a record that Vigil did not write.
        """
        name = _derived(token, "name")
        known = self._known.get(name)
        if known is not None:
            known.used_at = self._clock.monotonic()
            if known.used_at - known.looked_up_at >= _TTL_S:
                await self._looking.result()
                known = self._known.get(name)
        if known is None or self._is_old(known):
            found = await self._access.session(token)
            if found is None:
                return None
            known = self._keep(name, token, found)
        if known.found.grant.expires_at <= to_ms(self._clock.now()):
            return None
        return ConsoleSession(token, known.found.key, _derived(token, "csrf"))

    async def key_of(self, secret: str) -> ApiKey | None:
        """Return the live key that an API key or a one-time link stands for; the link can't be used again.

        Raises RecordUnreadable, also for a record that Vigil did not write.
        """
        if not secret.startswith(LINK_PREFIX):
            return await self._keys.find(secret)
        key_id = await self._access.take_link(secret)
        return None if key_id is None else await self._keys.find_by_id(key_id)

    async def begin(self, key: ApiKey) -> str:
        """Return the token of a new session for the key."""
        return await self._access.begin_session(key.id)

    async def end(self, token: str) -> None:
        """End a session."""
        self._known.pop(_derived(token, "name"), None)
        await self._access.end_session(token)

    def _is_old(self, known: _Known) -> bool:
        return self._clock.monotonic() - known.looked_up_at >= _TTL_S

    def _keep(self, name: str, token: str, found: LiveSession) -> _Known:
        now = self._clock.monotonic()
        known = self._known[name] = _Known(token, found, now, now)
        self._known.move_to_end(name)
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return known

    async def _look_up_together(self) -> None:
        """Look up the sessions that are in use, the latest first, and forget those that are over."""
        now = self._clock.monotonic()
        in_use = {name: one for name, one in self._known.items() if now - one.used_at < _IN_USE_S}
        latest = sorted(in_use.items(), key=lambda pair: -pair[1].used_at)[:_MAX_TOGETHER]
        found = await self._access.sessions({one.token: one.found.grant.digest for _, one in latest})
        for name, one in latest:
            if one.token in found:
                one.found, one.looked_up_at = found[one.token], now
            elif self._known.get(name) is one:
                del self._known[name]
            await asyncio.sleep(0)


def _derived(token: str, purpose: str) -> str:
    digest = hmac.digest(token.encode(), f"console {purpose}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
