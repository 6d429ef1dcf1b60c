"""Begins requests a few in a turn of the loop, so that many that arrive at once delay none of the others by much.

A request takes the loop a fraction of a millisecond before it waits for the first time, and the loop runs all that have
come before it looks at anything else. So the requests of a burst of new connections begin a few at a time, address by
address in turn, while those of connections that have served an app already, and probes, go past them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final

Start = Callable[[], None]


class Origin(IntEnum):
    """Where a request comes from; each has a number of requests that may begin in a turn, and a queue."""

    PROBE = 0
    KNOWN = 1
    """A connection that has had a response to a request of an app."""
    NEW = 2


PER_TURN: Final = {Origin.PROBE: 8, Origin.KNOWN: 32, Origin.NEW: 8}


class _Queue:
    """The requests of one origin that have not begun, by address."""

    def __init__(self, per_turn: int) -> None:
        self._per_turn, self._begun = per_turn, 0
        self._waiting: OrderedDict[str, deque[Start]] = OrderedDict()

    @property
    def is_idle(self) -> bool:
        """Return whether nothing has begun in this turn and nothing waits."""
        return not self._begun and not self._waiting

    def begin(self, address: str, start: Start) -> None:
        """Start the request, or put it in the queue behind the others of its address."""
        if self._waiting or self._begun >= self._per_turn:
            self._waiting.setdefault(address, deque()).append(start)
        else:
            self._begun += 1
            start()

    def next_turn(self) -> None:
        """Start as many of those that wait as may begin in one turn, one of each address after the other."""
        self._begun = 0
        while self._waiting and self._begun < self._per_turn:
            address, starts = self._waiting.popitem(last=False)
            start = starts.popleft()
            if starts:
                self._waiting[address] = starts
            self._begun += 1
            start()


class RequestStarts:
    """The requests that begin in one server."""

    def __init__(self) -> None:
        self._queues = {origin: _Queue(most) for origin, most in PER_TURN.items()}
        self._counting = False

    def begin(self, origin: Origin, address: str, start: Start) -> None:
        """Call `start` now, or in a later turn of the loop if too many have begun in this one."""
        self._queues[origin].begin(address, start)
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        for queue in self._queues.values():
            queue.next_turn()
        self._counting = not all(queue.is_idle for queue in self._queues.values())
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next_turn)
