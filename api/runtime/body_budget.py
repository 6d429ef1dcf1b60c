"""Limits the bytes of large bodies that this process holds at once: what does not fit waits, app by app in turn.

A body that waits stays with its client: it is not read, so it takes no memory here. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Final

_MAX_WAIT_S: Final = 30.0


class BudgetSpent(Exception):
    """Other large bodies took the room for too long."""

    retry_after: Final = 5


class Reservation:
    """Bytes of the budget that one body has; `release` may be called again."""

    def __init__(self, budget: BodyBudget, size: int) -> None:
        self._budget, self._size = budget, size

    def release(self) -> None:
        """Give the bytes back."""
        size, self._size = self._size, 0
        if size:
            self._budget.give_back(size)


class BodyBudget:
    """The bytes that are left, and who waits for some."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()

    async def take(self, app: str, size: int) -> Reservation:
        """Reserve bytes, at most all there are. Raises BudgetSpent if they are not free in time."""
        size = min(size, self._most)
        if size <= self._left and not self._waiting:
            self._left -= size
            return Reservation(self, size)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(app, deque()).append((size, turn))
        try:
            async with asyncio.timeout(_MAX_WAIT_S):
                await turn
        except TimeoutError:
            self._drop(turn, size)
            raise BudgetSpent from None
        except asyncio.CancelledError:
            self._drop(turn, size)
            raise
        return Reservation(self, size)

    def give_back(self, size: int) -> None:
        """Return bytes, and let those in who come next and fit."""
        self._left += size
        while self._waiting:
            app, turns = next(iter(self._waiting.items()))
            needed, turn = turns[0]
            if turn.done():
                self._next(app, turns)
                continue
            if needed > self._left:
                return
            self._left -= needed
            self._next(app, turns)
            turn.set_result(None)

    def _next(self, app: str, turns: deque[tuple[int, asyncio.Future[None]]]) -> None:
        """Remove the app's first body, and put the app behind the others."""
        turns.popleft()
        del self._waiting[app]
        if turns:
            self._waiting[app] = turns

    def _drop(self, turn: asyncio.Future[None], size: int) -> None:
        """Forget a body that waits no longer; the bytes that it got meanwhile go to the next one."""
        got = turn.done() and not turn.cancelled()
        turn.cancel()
        self.give_back(size if got else 0)
