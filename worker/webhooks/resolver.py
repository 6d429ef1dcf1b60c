"""Names of receivers -> addresses, on threads of their own: a hostile name server can't stall the lookups of others.

One name takes one thread however many wait for it, and the names of one domain take a few, however many there are: a
name server that never answers blocks nobody but its own domain.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from weakref import WeakValueDictionary

_THREADS: Final = 64
_PER_DOMAIN: Final = 4
_SECONDS: Final = 5.0

Lookup = Callable[[str], Sequence[str]]


def _system(host: str) -> list[str]:
    rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))


class SystemResolver:
    """The system's resolver, bounded in time."""

    def __init__(self, lookup: Lookup = _system, *, seconds: float = _SECONDS) -> None:
        self._lookup, self._seconds = lookup, seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="vigil-names")
        self._asked: dict[str, asyncio.Future[Sequence[str]]] = {}
        self._domains: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, host: str) -> Sequence[str]:
        """Every address of the name; OSError when it has none or nobody says so in time."""
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(self._asked.get(host) or await self._ask(host))
        except TimeoutError:
            raise OSError("no answer from the name servers") from None
        except UnicodeError:
            raise OSError("not a name") from None

    async def _ask(self, host: str) -> asyncio.Future[Sequence[str]]:
        """The lookup of the name, begun as soon as its domain has a thread to spare."""
        domain = ".".join(host.split(".")[-2:])
        places = self._domains.get(domain) or asyncio.Semaphore(_PER_DOMAIN)
        self._domains[domain] = places
        await places.acquire()
        if (asked := self._asked.get(host)) is not None:  # somebody else was waiting for it too
            places.release()
            return asked
        asked = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host)
        self._asked[host] = asked
        asked.add_done_callback(lambda done: self._answered(host, done, places))
        return asked

    def _answered(self, host: str, done: asyncio.Future[Sequence[str]], places: asyncio.Semaphore) -> None:
        places.release()
        self._asked.pop(host, None)
        if not done.cancelled():
            done.exception()  # whoever waited has seen it; if nobody did any more, it is not a fault of ours

    def close(self) -> None:
        """No more lookups; one that hangs is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)
