"""Runs what takes long because a request's body is large in one thread beside the event loop, app by app in turn.

One thread, because it shares the interpreter with the loop: with more of them the loop would wait for each. Work on
small bodies is done at once, since a thread costs more than it. What runs here must be cut into calls into C that are
short (strict_json.py), as no other thread runs during one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_MAX_INLINE_BYTES: Final = 64 * 1024


def is_large(size: int) -> bool:
    """Return whether work on a body of `size` bytes is done beside the loop."""
    return size > _MAX_INLINE_BYTES


class LargeWork:
    """The thread, started by the first large body, and who waits for it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vigil-large")
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._busy = False

    async def run(self, app: str, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns; it takes long only if `size`, in bytes, is large."""
        if not is_large(size):
            return function(*args, **kwargs)
        loop = asyncio.get_running_loop()
        if self._busy:
            await self._wait_for_turn(app, loop.create_future())
        self._busy = True
        try:
            return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))
        finally:
            self._pass_turn()

    async def _wait_for_turn(self, app: str, turn: asyncio.Future[None]) -> None:
        self._waiting.setdefault(app, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn had come
                self._pass_turn()
            raise

    def _pass_turn(self) -> None:
        """Give the thread to the app that has waited longest for it."""
        while self._waiting:
            app, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[app] = turns
            if not turn.done():  # else its request was cancelled
                turn.set_result(None)
                return
        self._busy = False

    def close(self) -> None:
        """End the thread once what it does is done; what waits for it is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
