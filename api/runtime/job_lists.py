"""How often the lists of jobs that are open in browsers are read: the more different ones, the more rarely each.

So that all open lists of a process together cost it under one read of Redis a second, up to twenty different ones.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from worker.clock import Clock

_SHORTEST_S: Final = 4.0
_EACH_S: Final = 3.0  # a read is two round trips: the search, and the records
_LONGEST_S: Final = 60.0
_IN_USE_S: Final = 90.0
_MAX_LISTS: Final = 2_000
_MAX_APPS: Final = 10_000


class JobLists:
    """The lists that are open: each an app's, with its filters."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: OrderedDict[str, float] = OrderedDict()
        self._changes: Counter[str] = Counter()

    def use(self, app: str, filters: str) -> tuple[str, float]:
        """Return the name of this list's live value, and how many seconds old it may be."""
        now, name = self._clock.monotonic(), f"jobs:{app}:{self._changes[app]}:{filters}"
        self._used[name] = now
        self._used.move_to_end(name)
        while now - next(iter(self._used.values())) > _IN_USE_S or len(self._used) > _MAX_LISTS:
            self._used.popitem(last=False)
        return name, min(_LONGEST_S, max(_SHORTEST_S, _EACH_S * len(self._used)))

    def forget(self, app: str) -> None:
        """Read the app's lists anew when they are asked for next: somebody has changed their jobs."""
        if len(self._changes) >= _MAX_APPS:
            self._changes.clear()
        self._changes[app] += 1
