"""Tells whether a job has changed since it was read, from what Redis publishes: an open page of it costs no reads."""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from api.runtime.broadcaster import Broadcaster, Watcher
from worker.clock import Clock

_MAX_JOBS: Final = 2_000
_UNUSED_S: Final = 60.0
_TURN_S: Final = 20.0


@dataclass(slots=True)
class _Watched:
    """A job that a page shows, the number of its last change, and when that was asked last."""

    watcher: Watcher
    stack: ExitStack
    change: int
    used_at: float


class JobChanges:
    """The jobs that are shown by pages which are open; those that nobody asks for are dropped."""

    def __init__(self, broadcaster: Broadcaster, clock: Clock) -> None:
        self._broadcaster, self._clock = broadcaster, clock
        self._watched: OrderedDict[str, _Watched] = OrderedDict()  # the last used last
        self._changes = 0
        self._last_turn = -math.inf

    def __len__(self) -> int:
        return len(self._watched)

    def last(self, job_id: str) -> int:
        """Return the number of the job's last change: another one once it may have changed."""
        now = self._clock.monotonic()
        known = self._watched.get(job_id)
        if known is None:
            self._drop_unused(now)
            stack = ExitStack()
            watcher = stack.enter_context(self._broadcaster.watch(job_id))
            known = self._watched[job_id] = _Watched(watcher, stack, self._next(), now)
        elif known.watcher.take():
            known.change = self._next()
        known.used_at = now
        self._watched.move_to_end(job_id)
        return known.change

    def take_turn(self) -> bool:
        """Return whether a job may be read although nothing says that it changed: one job of all in some seconds."""
        now = self._clock.monotonic()
        if now - self._last_turn < _TURN_S:
            return False
        self._last_turn = now
        return True

    def _next(self) -> int:
        self._changes += 1
        return self._changes

    def _drop_unused(self, now: float) -> None:
        while self._watched:
            oldest = next(iter(self._watched.values()))
            if len(self._watched) < _MAX_JOBS and now - oldest.used_at < _UNUSED_S:
                return
            self._watched.popitem(last=False)[1].stack.close()
