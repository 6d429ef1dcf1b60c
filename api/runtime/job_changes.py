"""Tells whether a job has changed since it was read, from what Redis publishes: an open page of it costs no reads."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from api.runtime.broadcaster import Broadcaster, Watcher
from worker.clock import Clock

_MAX_JOBS: Final = 2_000
_UNUSED_S: Final = 60.0


@dataclass(slots=True)
class _Watched:
    """A job that a page shows, and when that was asked last."""

    watcher: Watcher
    stack: ExitStack
    used_at: float


class JobChanges:
    """The jobs that are shown by pages which are open; those that nobody asks for are dropped."""

    def __init__(self, broadcaster: Broadcaster, clock: Clock) -> None:
        self._broadcaster, self._clock = broadcaster, clock
        self._watched: OrderedDict[str, _Watched] = OrderedDict()  # the last used last

    def __len__(self) -> int:
        return len(self._watched)

    def take(self, job_id: str) -> bool:
        """Return whether the job may have changed since the last call for it; True for the first one."""
        now = self._clock.monotonic()
        known = self._watched.get(job_id)
        if known is None:
            self._drop_unused(now)
            stack = ExitStack()
            self._watched[job_id] = _Watched(stack.enter_context(self._broadcaster.watch(job_id)), stack, now)
            return True
        known.used_at = now
        self._watched.move_to_end(job_id)
        return known.watcher.take()

    def _drop_unused(self, now: float) -> None:
        while self._watched:
            oldest = next(iter(self._watched.values()))
            if len(self._watched) < _MAX_JOBS and now - oldest.used_at < _UNUSED_S:
                return
            self._watched.popitem(last=False)[1].stack.close()
