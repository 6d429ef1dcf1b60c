"""Limits the bytes of large bodies that this process holds at once: what does not fit waits, app by app in turn.

A body that waits stays with its client: it is not read, so it takes no memory here. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from typing import Final

_MAX_WAIT_S: Final = 30.0


class BudgetSpent(Exception):
    """Other large bodies took the room for too long."""

    retry_after: Final = 5


class Reservation:
    """Bytes of the budget that one body has; `release` may be called again."""

    def __init__(self, budget: BodyBudget, app: str, size: int) -> None:
        self._budget, self._app, self._size = budget, app, size

    def release(self) -> None:
        """Give the bytes back."""
        size, self._size = self._size, 0
        if size:
            self._budget.give_back(self._app, size)


class BodyBudget:
    """The bytes that are left, which app holds how many, and who waits for some.

    An app with several bodies leaves room for one of another app, however slowly its clients send: a body holds its
    bytes until it is whole and stored.
    """

    def __init__(self, most: int, largest: int = 0) -> None:
        """`largest`: the bytes that one body may have; 0 = an app may hold all there are."""
        self._most = self._left = most
        self._share = max(most - largest, most // 2) if largest else 2 * most
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()

    async def take(self, app: str, size: int) -> Reservation:
        """Reserve bytes, at most all there are. Raises BudgetSpent if they are not free in time."""
        size = min(size, self._most)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(app, deque()).append((size, turn))
        self._admit()
        if turn.done():
            return Reservation(self, app, size)
        try:
            async with asyncio.timeout(_MAX_WAIT_S):
                await turn
        except TimeoutError:
            self._drop(app, turn, size)
            raise BudgetSpent from None
        except asyncio.CancelledError:
            self._drop(app, turn, size)
            raise
        return Reservation(self, app, size)

    def give_back(self, app: str, size: int) -> None:
        """Return bytes that the app has held, and let those in who come next and fit."""
        self._left += size
        self._held[app] -= size
        if not self._held[app]:
            del self._held[app]
        self._admit()

    def _admit(self) -> None:
        """Let those in who come next and fit: nobody passes one for whom too little is left, but for one whose own app
        holds its share.
        """
        admitted = True
        while admitted:
            admitted = False
            for app in list(self._waiting):
                needed = self._first(app)
                if needed is None or (self._held[app] and self._held[app] + needed > self._share):
                    continue
                if needed > self._left:
                    return
                self._left -= needed
                self._held[app] += needed
                self._next(app).set_result(None)
                admitted = True

    def _first(self, app: str) -> int | None:
        """Return the bytes of the app's first body that still waits, or None if none does."""
        while (turns := self._waiting.get(app)) is not None:
            needed, turn = turns[0]
            if not turn.done():
                return needed
            _ = self._next(app)
        return None

    def _next(self, app: str) -> asyncio.Future[None]:
        """Remove the app's first body and return its turn; put the app behind the others."""
        turns = self._waiting.pop(app)
        _, turn = turns.popleft()
        if turns:
            self._waiting[app] = turns
        return turn

    def _drop(self, app: str, turn: asyncio.Future[None], size: int) -> None:
        """Forget a body that waits no longer; the bytes that it got meanwhile go to the next one."""
        got = turn.done() and not turn.cancelled()
        turn.cancel()
        if got:
            self.give_back(app, size)
        else:
            self._admit()
