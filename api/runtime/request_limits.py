"""Limits of what each app, and all apps together, may have open in this process. In memory, a few additions a request.

A request runs, waits (a long poll, a wait for the end of a job) or streams, and is counted as one of these. Of an app's
running requests a few are worked on at a time and the others queue, so that a burst of one app delays another app by
these few only. Probes are not counted. Must not know HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Final

from worker.settings import Settings

MAX_ACTIVE: Final = 16
"""How many running requests of one app are worked on at a time while other apps send requests, too."""
MAX_ACTIVE_ALONE: Final = 32
"""The same of an app that sent the last _ALONE requests; it fills two round trips to Redis, and more gain nothing."""
_ALONE: Final = 2_000
_SLOT: Final = "vigil.slot"
_RETRY_AFTER_S: Final = 1
_RETRY_AFTER_WAIT_S: Final = 5


class Kind(StrEnum):
    """What a request does; also the end of the problem's code: `too_many_streams`."""

    REQUESTS = "requests"
    WAITS = "waits"
    STREAMS = "streams"


class LimitReached(Exception):
    """The app has as many requests of this kind open as it may have; `limit` None: all apps together have."""

    def __init__(self, kind: Kind, limit: int | None) -> None:
        super().__init__(kind)
        self.kind, self.limit = kind, limit
        self.retry_after = _RETRY_AFTER_S if kind is Kind.REQUESTS else _RETRY_AFTER_WAIT_S


class _AppUsage:
    """What one app has open."""

    __slots__ = ("active", "counts", "queue")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Kind, 0)
        self.active = 0
        self.queue: deque[asyncio.Future[None]] = deque()

    def release(self, max_active: int) -> None:
        """Give the place of an active request to the next one of the queue, if no more than `max_active` are active."""
        while self.queue and self.active <= max_active:
            turn = self.queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.active -= 1


class RequestLimits:
    """What is open in this process, by app and in total."""

    def __init__(self, settings: Settings) -> None:
        self.of_app = {
            Kind.REQUESTS: settings.app_max_requests,
            Kind.WAITS: settings.app_max_waits,
            Kind.STREAMS: settings.app_max_streams,
        }
        self.max_running, self.max_waiting = settings.max_requests, settings.max_waiting
        self.running, self.waiting = 0, 0
        self._apps: dict[str, _AppUsage] = {}
        self._latest = ""
        self._shared = 0

    def note_request_of(self, app: str) -> None:
        """Note which app sends a request. Counted, not timed: reading a clock costs as much as all of this."""
        if app != self._latest:
            self._shared = _ALONE if self._latest else 0
            self._latest = app
        elif self._shared:
            self._shared -= 1

    def is_shared(self) -> bool:
        """Return whether more than one app has sent requests of late."""
        return self._shared > 0

    @property
    def max_active(self) -> int:
        """How many running requests of one app are worked on at a time now."""
        return MAX_ACTIVE if self._shared else MAX_ACTIVE_ALONE

    def usage(self, app: str) -> _AppUsage:
        """Return what this app has open."""
        found = self._apps.get(app)
        if found is None:
            found = self._apps[app] = _AppUsage()
        return found

    def open_requests(self, app: str) -> dict[Kind, int]:
        """Return how many requests of each kind the app has open."""
        return dict(self.usage(app).counts)


class RequestSlot:
    """The place of one request in the counts."""

    __slots__ = ("_active", "_app", "_kind", "_limits")

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._app: _AppUsage | None = None
        self._kind: Kind | None = None
        self._active = False

    def start(self) -> bool:
        """Count the request in the total; return False if there are too many."""
        limits = self._limits
        if limits.running >= limits.max_running:
            return False
        limits.running += 1
        self._kind = Kind.REQUESTS
        return True

    @property
    def of_app(self) -> bool:
        """Return whether the request has shown the key of an app."""
        return self._app is not None

    @property
    def waits(self) -> bool:
        """Return whether the request waits or streams."""
        return self._kind is not None and self._kind is not Kind.REQUESTS

    async def enter(self, app: str, has_left: Callable[[], bool]) -> bool:
        """Count the request for its app, and wait until it is the request's turn.

        Return False if its client had left by then. Raises LimitReached.
        """
        if self._app is not None or self._kind is None:
            return True
        usage, limit = self._limits.usage(app), self._limits.of_app[self._kind]
        if limit and usage.counts[self._kind] >= limit:
            raise LimitReached(self._kind, limit)
        usage.counts[self._kind] += 1
        self._app = usage
        self._limits.note_request_of(app)
        if usage.active < self._limits.max_active:
            usage.active += 1
            self._active = True
            return True
        await self.resume()
        return not has_left()

    def begin(self, kind: Kind) -> None:
        """Count the request as a wait or a stream from now on. Raises LimitReached."""
        limits, usage = self._limits, self._app
        if usage is None or self._kind is None or kind is self._kind:
            return
        limit = limits.of_app[kind]
        if limit and usage.counts[kind] >= limit:
            raise LimitReached(kind, limit)
        if self._kind is Kind.REQUESTS:
            if limits.waiting >= limits.max_waiting:
                raise LimitReached(kind, None)
            limits.waiting += 1
            limits.running -= 1
        self._count_as(usage, kind)

    def rest(self) -> None:
        """Let another request of the app be worked on: this one waits for its client, or for something to happen."""
        if self._active and self._app is not None:
            self._active = False
            self._app.release(self._limits.max_active)

    async def resume(self) -> None:
        """Wait until it is the request's turn to be worked on again."""
        usage = self._app
        if usage is None or self._active:
            return
        if usage.active < self._limits.max_active:
            usage.active += 1
        else:
            turn = asyncio.get_running_loop().create_future()
            usage.queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    usage.release(self._limits.max_active)
                raise
        self._active = True

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Count the request as a wait within this block. Raises LimitReached."""
        self.begin(Kind.WAITS)
        self.rest()
        yield
        limits, usage = self._limits, self._app
        if usage is not None and self._kind is Kind.WAITS:
            limits.waiting -= 1
            limits.running += 1  # also above the limit: the request was let in before
            self._count_as(usage, Kind.REQUESTS)
            await self.resume()

    def leave(self) -> None:
        """Count the request no longer."""
        self.rest()
        if self._app is not None and self._kind is not None:
            self._app.counts[self._kind] -= 1
        if self._kind is Kind.REQUESTS:
            self._limits.running -= 1
        elif self._kind is not None:
            self._limits.waiting -= 1
        self._app = self._kind = None

    def _count_as(self, usage: _AppUsage, kind: Kind) -> None:
        if self._kind is not None:
            usage.counts[self._kind] -= 1
        usage.counts[kind] += 1
        self._kind = kind


def set_slot(scope: Any, slot: RequestSlot) -> None:
    """Attach the slot to the request."""
    scope[_SLOT] = slot


def slot_of(scope: Any) -> RequestSlot:
    """Return the slot of the request."""
    slot: RequestSlot = scope[_SLOT]
    return slot


def is_of_app(scope: Any) -> bool:
    """Return whether the request has shown the key of an app."""
    slot: RequestSlot | None = scope.get(_SLOT)
    return slot is not None and slot.of_app


def is_waiting(scope: Any) -> bool:
    """Return whether the request waits or streams; False before it was counted."""
    slot: RequestSlot | None = scope.get(_SLOT)
    return slot is not None and slot.waits
