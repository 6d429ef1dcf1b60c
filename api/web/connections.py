"""The open connections of a server: how many there may be, and which one gives way to a new one.

A client that opens connections and sends nothing, or keeps idle ones, must not shut out the others. So a server that
is full takes the new connection and closes the oldest one without a request, first of those that have never sent a
whole head. Must not know HTTP.
"""

from __future__ import annotations

import resource
from typing import Final, Protocol

_RESERVED_FILES: Final = 256
"""Of the process' files: for Redis, logs, and connections above the limit."""
_MIN_CONNECTIONS: Final = 16
_MIN_SILENT, _SILENT_SHARE = 64, 4
"""Connections that have never sent a whole head may be a quarter of all, and so many in any case."""


class Connection(Protocol):
    """A connection, as the table uses it."""

    def give_way(self) -> None:
        """Close the connection, which serves no request."""
        ...


class ConnectionTable:
    """All connections of one server."""

    def __init__(self, limit: int) -> None:
        self._limit, self._count = limit, 0
        self._silent: dict[Connection, None] = {}  # in the order in which they came
        self._idle: dict[Connection, None] = {}  # in the order in which their last response ended

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Connection) -> bool:
        """Add a connection; return False if it is one too many and none could give way to it."""
        self._count += 1
        oldest = None
        if self._count > self._limit or len(self._silent) >= max(_MIN_SILENT, self._limit // _SILENT_SHARE):
            oldest = next(iter(self._silent), None) or next(iter(self._idle), None)
        self._silent[connection] = None
        if oldest is not None:
            self.set_busy(oldest)  # it can't be chosen twice
            oldest.give_way()
        return oldest is not None or self._count <= self._limit

    def set_busy(self, connection: Connection) -> None:
        """Record that the connection serves a request."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def set_idle(self, connection: Connection) -> None:
        """Record that the response is complete and that no other request has come."""
        self._idle[connection] = None

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._count -= 1
        self.set_busy(connection)


def connection_limit(wanted: int) -> int:
    """Return how many connections the process may have, at most `wanted`; raise its limit of open files as needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        except (OSError, ValueError):
            pass
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(_MIN_CONNECTIONS, min(wanted, soft - _RESERVED_FILES))
