"""Bounds the lookups under way: in all, per app, and per registrable domain.

No app gets more places than it leaves free, neither in all nor of a domain, so that whatever names an app sends
webhooks to, the next app finds a place at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final, NamedTuple

MAX_LOOKUPS: Final = 128
MAX_PER_APP: Final = 32
MAX_PER_DOMAIN: Final = 8


class _Waiter(NamedTuple):
    """A lookup that waits for a place."""

    app: str
    domain: str
    admitted: asyncio.Future[None]


class LookupPlaces:
    """The places of lookups; those that wait are admitted in order, past those whose app or domain is full."""

    def __init__(
        self, *, total: int = MAX_LOOKUPS, per_app: int = MAX_PER_APP, per_domain: int = MAX_PER_DOMAIN
    ) -> None:
        self._total, self._per_app, self._per_domain = total, per_app, per_domain
        self._taken = 0
        self._apps, self._domains = Counter[str](), Counter[str]()
        self._apps_of_domains = Counter[tuple[str, str]]()
        self._waiting: list[_Waiter] = []

    async def take(self, app: str, domain: str) -> None:
        """Wait for a place and take it; whoever takes one gives it back."""
        if self._may_take(app, domain):
            self._count(app, domain, 1)
            return
        waiter = _Waiter(app, domain, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled():
                self.give_back(app, domain)
            else:
                self._waiting.remove(waiter)
            raise

    def _may_take(self, app: str, domain: str) -> bool:
        free, free_of_domain = self._total - self._taken, self._per_domain - self._domains[domain]
        if self._apps[app] >= min(self._per_app, free):
            return False
        return self._apps_of_domains[app, domain] < free_of_domain

    def give_back(self, app: str, domain: str) -> None:
        """Give a place back, and admit those who may have one now."""
        self._count(app, domain, -1)
        still = []
        for waiter in self._waiting:
            if waiter.admitted.done():  # cancelled: it removes itself
                still.append(waiter)
            elif self._may_take(waiter.app, waiter.domain):
                self._count(waiter.app, waiter.domain, 1)
                waiter.admitted.set_result(None)
            else:
                still.append(waiter)
        self._waiting = still

    def _count(self, app: str, domain: str, step: int) -> None:
        self._taken += step
        self._apps[app] += step
        self._domains[domain] += step
        self._apps_of_domains[app, domain] += step
        if not self._apps[app]:
            del self._apps[app]
        if not self._domains[domain]:
            del self._domains[domain]
        if not self._apps_of_domains[app, domain]:
            del self._apps_of_domains[app, domain]
