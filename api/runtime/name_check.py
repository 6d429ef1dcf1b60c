"""Check whether names in a request lead to addresses that the provider must not be sent to, as far as this can be seen
from here: the provider asks name servers of its own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from worker.clock import Clock
from worker.webhooks.guard import AddressPolicy, Resolver

_TIMEOUT_S: Final = 0.5  # of one request, which must not wait for a slow name server
_TTL_S: Final = 30.0
_MAX_ENTRIES: Final = 4_096
MAX_NAMES: Final = 128
"""How many names one request may have looked up, however many jobs it has."""


class NameCheck:
    """Looks names up, and remembers for a while what they led to."""

    def __init__(self, resolver: Resolver, clock: Clock, policy: AddressPolicy) -> None:
        self._resolver, self._clock, self._policy = resolver, clock, policy
        self._known: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    async def forbidden(self, hosts: Iterable[str], app: str) -> set[str]:
        """Return those of the names that have a forbidden address; one that isn't found in time has none.

        `app`: whose request names them.
        """
        names = set(hosts)
        tasks = {name: asyncio.create_task(self._is_forbidden(name, app)) for name in names}
        if not tasks:
            return set()
        _, late = await asyncio.wait(tasks.values(), timeout=_TIMEOUT_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return {name for name, task in tasks.items() if not task.cancelled() and task.result()}

    async def _is_forbidden(self, host: str, app: str) -> bool:
        expires_at, known = self._known.get(host, (0.0, False))
        if expires_at > self._clock.monotonic():
            return known
        try:
            found = await self._resolver(host, app)
        except OSError:
            return False
        bad = not all(self._policy.allows(one) for one in found)
        self._known[host] = (self._clock.monotonic() + _TTL_S, bad)
        while len(self._known) > _MAX_ENTRIES:
            self._known.popitem(last=False)
        return bad


class RequestNames:
    """The names in one request, which may have many jobs: each is looked up once, and not more than `MAX_NAMES`."""

    def __init__(self, check: NameCheck, app: str) -> None:
        self._check, self._app = check, app
        self._forbidden: dict[str, bool] = {}

    async def forbidden(self, hosts: Iterable[str]) -> set[str]:
        """Return those of the names that have a forbidden address.

        As many as there may be are looked up together: a batch asks for all of its names before its first job does.
        """
        wanted = dict.fromkeys(hosts)
        new = [host for host in wanted if host not in self._forbidden][: MAX_NAMES - len(self._forbidden)]
        if new:
            self._forbidden |= dict.fromkeys(new, False)
            self._forbidden |= dict.fromkeys(await self._check.forbidden(new, self._app), True)
        return {host for host in wanted if self._forbidden.get(host)}

    def left_out(self, hosts: Iterable[str]) -> list[str]:
        """Return those of the names that are too many: they were not looked up."""
        return [host for host in hosts if host not in self._forbidden]
