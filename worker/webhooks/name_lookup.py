"""Looks names up without a thread for each: with c-ares, which reads what the system's resolver reads.

That is /etc/hosts, and of resolv.conf the name servers, search domains and options, also when they change; so names of
Docker, Compose and Kubernetes resolve as they did. A thread in getaddrinfo can't be stopped: a name server that never
answers held it for up to a minute. Here a caller that gives up costs nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import pycares

from worker.webhooks.lookup_places import MAX_LOOKUPS

_TRY_SECONDS: Final = 1.0
_TRIES: Final = 4
"""Each try waits twice as long as the one before, and less where answers were fast: in all as long as callers do."""


class NameLookup(Protocol):
    """Looks a name up."""

    async def addresses(self, host: str) -> Sequence[str]:
        """Return every address of the name; raise OSError if it has none."""

    def close(self) -> None:
        """Give up lookups under way."""


class CaresLookup:
    """Lookups by c-ares; made inside a running loop."""

    def __init__(self, **options: Any) -> None:
        """Read the system's configuration; `options` of the channel are for tests. Raises pycares.AresError."""
        self._channel = pycares.Channel(timeout=_TRY_SECONDS, tries=_TRIES, **options)

    async def addresses(self, host: str) -> Sequence[str]:
        """Return every address of the name; raise OSError if it has none."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any, error: int | None) -> None:
            if found.done():
                return
            if error is not None:
                found.set_exception(OSError(pycares.errno.strerror(error)))
            else:
                found.set_result(result)

        def on_answer(result: Any, error: int | None) -> None:
            with contextlib.suppress(RuntimeError):  # it comes on a thread of c-ares, perhaps after the loop has closed
                loop.call_soon_threadsafe(settle, result, error)

        try:
            self._channel.getaddrinfo(host, None, type=socket.SOCK_STREAM, callback=on_answer)
        except (pycares.AresError, RuntimeError, ValueError):
            raise OSError("the name can't be looked up") from None
        return [node.addr[0].decode() for node in (await found).nodes]

    def close(self) -> None:
        """Give up lookups under way."""
        with contextlib.suppress(RuntimeError):
            self._channel.cancel()
        self._channel.close()


class ThreadLookup:
    """Lookups by the system's resolver on threads, for systems where c-ares can't start (no inotify watch is left)."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="vigil-names")

    async def addresses(self, host: str) -> Sequence[str]:
        """Return every address of the name; raise OSError if it has none."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _system_addresses, host)

    def close(self) -> None:
        """Give up lookups under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def system_lookup() -> NameLookup:
    """Return what looks names up on this system."""
    try:
        return CaresLookup()
    except pycares.AresError:
        return ThreadLookup()


def _system_addresses(host: str) -> list[str]:
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("not a name") from None
    return [str(row[4][0]) for row in rows]
