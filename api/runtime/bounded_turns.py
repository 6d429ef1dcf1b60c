"""Turns of limited number and length, for work that anybody can begin without a key.

Who begins is always let in: when too many turns are under way, the oldest one ends. So clients that begin and do not
go on shut out nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class BoundedTurns:
    """The turns that are under way."""

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._under_way: dict[asyncio.Timeout, None] = {}  # in the order in which they began

    def __len__(self) -> int:
        return len(self._under_way)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Give a turn; it raises TimeoutError when its time is over or it has to give way."""
        async with asyncio.timeout(self._seconds) as deadline:
            if len(self._under_way) >= self._limit:
                oldest = next(iter(self._under_way))
                del self._under_way[oldest]
                oldest.reschedule(asyncio.get_running_loop().time())
            self._under_way[deadline] = None
            try:
                yield
            finally:
                self._under_way.pop(deadline, None)
