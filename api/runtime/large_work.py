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
_REST: Final = 5


def is_large(size: int) -> bool:
    """Return whether work on a body of `size` bytes is done beside the loop."""
    return size > _MAX_INLINE_BYTES


class LargeWork:
    """The thread, started by the first large body, and who waits for it.

    While several apps send requests, an app rests after its work five times as long as that took: the others would
    notice the thread, which shares the interpreter with them.
    """

    def __init__(self, is_shared: Callable[[], bool] = lambda: False) -> None:
        """`is_shared`: whether several apps have sent requests of late."""
        self._is_shared = is_shared
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vigil-large")
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._rests_until: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False

    async def run(self, app: str, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns; it takes long only if `size`, in bytes, is large."""
        if not is_large(size):
            return function(*args, **kwargs)
        loop = asyncio.get_running_loop()
        if self._busy or app in self._waiting or self._rests(app, loop.time()):
            await self._wait_for_turn(app, loop)
        self._busy, began = True, loop.time()
        try:
            return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))
        finally:
            ended = loop.time()
            if self._is_shared():
                self._rests_until[app] = ended + _REST * (ended - began)
            self._pass_turn(loop)

    async def _wait_for_turn(self, app: str, loop: asyncio.AbstractEventLoop) -> None:
        turn = loop.create_future()
        self._waiting.setdefault(app, deque()).append(turn)
        if not self._busy:
            self._pass_turn(loop)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn had come
                self._pass_turn(loop)
            raise

    def _pass_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the thread to the app that has waited longest for it and does not rest, now or once its rest is over."""
        self._busy = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = loop.time()
        for app in list(self._waiting):
            if not self._rests(app, now) and self._give_turn(app):
                self._busy = True
                return
        if self._waiting:
            soonest = min(self._rests_until.get(app, now) for app in self._waiting)
            self._timer = loop.call_at(soonest, self._pass_turn, loop)

    def _give_turn(self, app: str) -> bool:
        """Give the app's next request its turn; return False if all of them were cancelled."""
        turns = self._waiting.pop(app)
        while turns:
            turn = turns.popleft()
            if not turn.done():
                turn.set_result(None)
                if turns:
                    self._waiting[app] = turns  # behind the other apps
                return True
        return False

    def _rests(self, app: str, now: float) -> bool:
        until = self._rests_until.get(app)
        if until is None:
            return False
        if now < until and self._is_shared():
            return True
        del self._rests_until[app]
        return False

    def close(self) -> None:
        """End the thread once what it does is done; what waits for it is dropped."""
        if self._timer is not None:
            self._timer.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
