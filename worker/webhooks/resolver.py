"""Resolves the names of receivers, so that a hostile name server can't delay the lookups of others.

One name is looked up once however many callers wait for it. Lookups are bounded per app and per registrable domain
(lookup_places.py), and each ends after a few seconds, which truly frees its place (name_lookup.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from worker.webhooks.lookup_places import LookupPlaces
from worker.webhooks.name_lookup import NameLookup, system_lookup
from worker.webhooks.registrable_domain import registrable_domain

_TIMEOUT_S: Final = 5.0


class SystemResolver:
    """The system's resolver with a timeout, and with bounds per app and domain."""

    def __init__(self, lookup: NameLookup | None = None, *, seconds: float = _TIMEOUT_S) -> None:
        self._lookup, self._seconds = lookup, seconds
        self._places = LookupPlaces()
        self._under_way: dict[str, asyncio.Task[Sequence[str]]] = {}

    async def __call__(self, host: str, app: str) -> Sequence[str]:
        """Return every address of the name; raise OSError if it has none or there is no answer in time.

        `app`: whose webhook needs it.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(self._under_way.get(host) or await self._start(host, app))
        except TimeoutError:
            raise OSError("no answer from the name servers") from None

    async def _start(self, host: str, app: str) -> asyncio.Task[Sequence[str]]:
        """Return the lookup of the name, begun as soon as there is a place for it."""
        domain = registrable_domain(host)
        await self._places.take(app, domain)
        if (begun := self._under_way.get(host)) is not None:  # by another caller meanwhile
            self._places.give_back(app, domain)
            return begun
        task = asyncio.create_task(self._look_up(host), name="name lookup")
        self._under_way[host] = task

        def forget(done: asyncio.Task[Sequence[str]]) -> None:
            self._under_way.pop(host, None)
            self._places.give_back(app, domain)
            if not done.cancelled():
                done.exception()  # marks it as retrieved, even if no caller waits any more

        task.add_done_callback(forget)
        return task

    async def _look_up(self, host: str) -> Sequence[str]:
        if self._lookup is None:
            self._lookup = system_lookup()
        async with asyncio.timeout(self._seconds):
            return list(dict.fromkeys(await self._lookup.addresses(host)))

    def close(self) -> None:
        """Stop lookups."""
        for task in self._under_way.values():
            task.cancel()
        if self._lookup is not None:
            self._lookup.close()
