"""Names of receivers -> addresses, on threads of their own: a hostile name server can't stall the lookups of others.

One name takes one thread however many wait for it, so names that never answer block nobody but themselves.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_THREADS: Final = 32
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

    async def __call__(self, host: str) -> Sequence[str]:
        """Every address of the name; OSError when it has none or nobody says so in time."""
        asked = self._asked.get(host)
        if asked is None:
            asked = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host)
            self._asked[host] = asked
            asked.add_done_callback(lambda done: self._answered(host, done))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise OSError("no answer from the name servers") from None
        except UnicodeError:
            raise OSError("not a name") from None

    def _answered(self, host: str, done: asyncio.Future[Sequence[str]]) -> None:
        self._asked.pop(host, None)
        if not done.cancelled():
            done.exception()  # whoever waited has seen it; if nobody did any more, it is not a fault of ours

    def close(self) -> None:
        """No more lookups; one that hangs is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)
