"""Whether a client has received a response. The answer of a job with `store: false` is erased a minute after it was.

Sent is not received: the system keeps megabytes for a client that has left. So the response counts as received once
the client's system has acknowledged its last byte.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterable
from typing import Any, Final, Protocol

from starlette.types import Scope

from worker.jobs.record import Job

_ANSWERS: Final = "vigil.answers"
_TO_OTHERS: Final = "vigil.to_others"
_CONNECTION: Final = "vigil.connection"
_FIRST_LOOK_S, _MAX_PAUSE_S = 0.002, 0.5


class ServerConnection(Protocol):
    """The connection of a request, as uvicorn_protocol.py attaches it."""

    transport: asyncio.Transport
    failed: bool
    """Whether it ended before all was sent."""

    @property
    def body_has_begun(self) -> bool:
        """Return whether some of the body of the served request has been received, or it has none."""
        ...


def attach_connection(scope: Any, connection: ServerConnection) -> None:
    """Attach the connection to the request."""
    scope["state"][_CONNECTION] = connection


def has_left(scope: Scope) -> bool:
    """Return whether the connection of the request is known to be closed."""
    connection: ServerConnection | None = scope.get("state", {}).get(_CONNECTION)
    return connection is not None and connection.transport.is_closing()


def body_has_begun(scope: Scope) -> bool:
    """Return whether some of the request's body has been received, or it has none."""
    connection: ServerConnection | None = scope.get("state", {}).get(_CONNECTION)
    return connection is not None and connection.body_has_begun


def note_no_answers(scope: Scope) -> None:
    """Record that the response goes to somebody whom the app lets read: the app itself has not received it."""
    scope[_TO_OTHERS] = True


def note_answers(scope: Scope, jobs: Iterable[Job]) -> None:
    """Record that the response to this request shows the answers of these jobs, if they are over."""
    for job in jobs:
        if job.settled and job.content_removed is None:
            note_answer(scope, job)


def note_answer(scope: Scope, job: Job) -> None:
    """Record that the response to this request shows the whole answer of the job, which is over by now."""
    if not job.store and _TO_OTHERS not in scope:
        scope.setdefault(_ANSWERS, []).append(job.id)


def noted_answers(scope: Scope) -> list[str]:
    """Return the ids of the jobs whose answers the response shows and which are not to be stored."""
    found: list[str] = scope.get(_ANSWERS, [])
    return found


class Receipt:
    """Watches a connection until the client has received what is sent on it. Make it before the last byte is sent.

    It holds a duplicate of the socket, because the server may close its own with the last byte.
    """

    def __init__(self, scope: Scope) -> None:
        self._connection: ServerConnection | None = scope.get("state", {}).get(_CONNECTION)
        self._socket: socket.socket | None = None
        found = None if has_left(scope) or self._connection is None else self._connection.transport
        if found is not None:
            raw = found.get_extra_info("socket")
            self._socket = socket.socket(fileno=os.dup(raw.fileno())) if raw is not None else None
        self._left = has_left(scope)

    async def arrived(self, seconds: float) -> bool:
        """Return whether the client has received everything within so many seconds."""
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + seconds, _FIRST_LOOK_S
        try:
            while not self._left:
                unacknowledged = self._unacknowledged()
                if unacknowledged is None or loop.time() >= end:
                    return False
                if not unacknowledged:
                    return True
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_S)
            return False
        finally:
            self.close()

    def close(self) -> None:
        """Release the duplicate of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _unacknowledged(self) -> int | None:
        """Return how many bytes are still under way, or None if the connection was broken."""
        if self._connection is None or self._socket is None:  # not our server: sent is all that is known
            return 0
        if self._connection.failed or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return None
        try:
            queued = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0" * 4)
        except OSError:  # only Linux counts them
            queued = b"\0" * 4
        return self._connection.transport.get_write_buffer_size() + int(struct.unpack("i", queued)[0])
