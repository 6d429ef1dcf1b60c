"""Whether a client has received a response. The answer of a job with `store: false` is erased a minute after it was.

Sent is not received: the system keeps megabytes for a client that has left. And what the client's system has
acknowledged its program may not have read: one that ends with bytes unread has its connection reset, and a reset is the
last that a server can know. So the response counts as received once its last byte was acknowledged and the connection
then either was ended in order or lived on for a while. (To a proxy in between, the proxy is the client.)
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
_LIVES_ON_S: Final = 2.0
"""How long a connection that stays open is watched behind the last acknowledgement: who reads does it by then."""
_MAX_DUPLICATES: Final = 128
"""Sockets that are held open for this; more may not be, since the files of a process are few."""
_ENDED_BY_CLIENT: Final = frozenset({6, 7, 8, 9, 11})
"""States of TCP in which the client has ended the connection: TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING."""


class ServerConnection(Protocol):
    """The connection of a request, as uvicorn_protocol.py attaches it."""

    transport: asyncio.Transport
    failed: bool
    """Whether it was reset, or ended before all was sent."""
    left_unacknowledged: int | None
    """How many bytes were not acknowledged when the client ended it in order; None before."""

    @property
    def closes(self) -> bool:
        """Return whether the server closes it behind the response that is being sent."""
        ...

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


def close_connection(scope: Scope) -> None:
    """Close the connection of the request behind what was sent."""
    connection: ServerConnection | None = scope.get("state", {}).get(_CONNECTION)
    if connection is not None:
        connection.transport.close()


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

    It holds a duplicate of the socket if the server closes its own with the last byte.
    """

    _duplicates = 0

    def __init__(self, scope: Scope) -> None:
        self._connection: ServerConnection | None = scope.get("state", {}).get(_CONNECTION)
        self._left, self._duplicate = has_left(scope), None
        if self._connection is not None and not self._left and self._connection.closes:
            self._duplicate = self._duplicate_of(self._connection.transport)
            self._left = self._duplicate is None

    @classmethod
    def _duplicate_of(cls, transport: asyncio.Transport) -> socket.socket | None:
        try:
            if cls._duplicates >= _MAX_DUPLICATES:
                return None
            found = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        except (OSError, AttributeError):
            return None
        cls._duplicates += 1
        return found

    async def arrived(self, seconds: float) -> bool:
        """Return whether the client has received everything, all of it acknowledged within so many seconds."""
        loop = asyncio.get_running_loop()
        end, pause, acknowledged_at = loop.time() + seconds, _FIRST_LOOK_S, None
        try:
            while not self._left:
                under_way, ended = self._look()
                if under_way is None or (under_way and (ended or loop.time() >= end)):
                    return False
                if not under_way:
                    acknowledged_at = acknowledged_at if acknowledged_at is not None else loop.time()
                    if ended or loop.time() - acknowledged_at >= _LIVES_ON_S:
                        return True
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_S)
            return False
        finally:
            self.close()

    def close(self) -> None:
        """Release the duplicate of the socket."""
        if self._duplicate is not None:
            self._duplicate.close()
            self._duplicate = None
            Receipt._duplicates -= 1

    def _look(self) -> tuple[int | None, bool]:
        """Return how many bytes are under way, None after a reset, and whether the client has ended the connection."""
        if self._connection is None:  # not our server: sent is all that is known
            return 0, True
        if self._connection.failed:
            return None, True
        buffered = self._connection.transport.get_write_buffer_size()
        if self._duplicate is not None:
            if self._duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return None, True
            return buffered + unacknowledged(self._duplicate), _ended_by_client(self._duplicate)
        left = self._connection.left_unacknowledged
        if left is not None:
            return left, True
        if self._connection.transport.is_closing():  # by us, or it was reset and that is not told yet
            return 1, False
        return buffered + unacknowledged(self._connection.transport.get_extra_info("socket")), False


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes the system has sent or will send and the other side has not acknowledged."""
    try:
        queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    except OSError:  # only Linux counts them
        return 0
    return int(struct.unpack("i", queued)[0])


def _ended_by_client(sock: socket.socket) -> bool:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _ENDED_BY_CLIENT
    except (OSError, AttributeError):  # only Linux tells
        return False
