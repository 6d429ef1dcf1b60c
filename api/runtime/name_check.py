"""Check whether names in a request lead to addresses that the provider must not be sent to, as far as this can be seen
from here: the provider asks name servers of its own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from worker.clock import Clock
from worker.webhooks.addresses import address_allowed
from worker.webhooks.guard import Resolver

_TIMEOUT_S: Final = 0.5  # of one request, which must not wait for a slow name server
_TTL_S: Final = 30.0
_MAX_ENTRIES: Final = 4_096


class NameCheck:
    """Looks names up, and remembers for a while what they led to."""

    def __init__(self, resolver: Resolver, clock: Clock, *, allow_private: bool) -> None:
        self._resolver, self._clock, self._allow_private = resolver, clock, allow_private
        self._known: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    async def forbidden(self, hosts: Iterable[str]) -> set[str]:
        """Return those of the names that have a forbidden address; one that isn't found in time has none."""
        names = set(hosts)
        tasks = {name: asyncio.create_task(self._is_forbidden(name)) for name in names}
        if not tasks:
            return set()
        _, late = await asyncio.wait(tasks.values(), timeout=_TIMEOUT_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return {name for name, task in tasks.items() if not task.cancelled() and task.result()}

    async def _is_forbidden(self, host: str) -> bool:
        expires_at, known = self._known.get(host, (0.0, False))
        if expires_at > self._clock.monotonic():
            return known
        try:
            found = await self._resolver(host)
        except OSError:
            return False
        bad = not all(address_allowed(one, allow_private=self._allow_private) for one in found)
        self._known[host] = (self._clock.monotonic() + _TTL_S, bad)
        while len(self._known) > _MAX_ENTRIES:
            self._known.popitem(last=False)
        return bad
