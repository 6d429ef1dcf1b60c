"""Resolves the names of receivers on separate threads, so that a hostile name server can't delay other lookups.

One name takes one thread however many callers wait for it, and the names of one domain take a few: a name server that
never answers blocks only its own domain.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from weakref import WeakValueDictionary

_MAX_THREADS: Final = 64
_MAX_THREADS_PER_DOMAIN: Final = 4
_TIMEOUT_S: Final = 5.0

Lookup = Callable[[str], Sequence[str]]


def _system_lookup(host: str) -> list[str]:
    rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


class SystemResolver:
    """The system's resolver with a timeout."""

    def __init__(self, lookup: Lookup = _system_lookup, *, seconds: float = _TIMEOUT_S) -> None:
        self._lookup, self._seconds = lookup, seconds
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="vigil-names")
        self._lookups: dict[str, asyncio.Future[Sequence[str]]] = {}
        self._domains: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, host: str) -> Sequence[str]:
        """Return every address of the name; raise OSError if it has none or there is no answer in time."""
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(self._lookups.get(host) or await self._start_lookup(host))
        except TimeoutError:
            raise OSError("no answer from the name servers") from None
        except UnicodeError:
            raise OSError("not a name") from None

    async def _start_lookup(self, host: str) -> asyncio.Future[Sequence[str]]:
        """Start the lookup of the name as soon as its domain has a free thread, and return its future."""
        domain = ".".join(host.split(".")[-2:])
        slots = self._domains.get(domain) or asyncio.Semaphore(_MAX_THREADS_PER_DOMAIN)
        self._domains[domain] = slots
        await slots.acquire()
        if (lookup := self._lookups.get(host)) is not None:  # another caller has started it meanwhile
            slots.release()
            return lookup
        lookup = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host)
        self._lookups[host] = lookup
        lookup.add_done_callback(lambda done: self._on_done(host, done, slots))
        return lookup

    def _on_done(self, host: str, done: asyncio.Future[Sequence[str]], slots: asyncio.Semaphore) -> None:
        slots.release()
        self._lookups.pop(host, None)
        if not done.cancelled():
            done.exception()  # marks it as retrieved, even if no caller waits any more

    def close(self) -> None:
        """Stop lookups; one that hangs is abandoned."""
        self._threads.shutdown(wait=False, cancel_futures=True)
