"""How long looks at a running response have brought no word of it: told once when it gets long, once when it ends.

Knows no clock: whoever looks says how long it took.
"""

from __future__ import annotations

from typing import Final

from worker.telemetry.events import emit

OUT_OF_REACH_SECONDS: Final = 30.0
"""Seconds without a word of the response after which it is out of reach."""


class Reachability:
    """What is known of one response's reach; the log hears two lines at most of each time that it is out of reach."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self.lost = False
        """True once it was told that the response is out of reach."""

    def record_failure(self, seconds: float) -> None:
        """A look brought nothing; it and the wait after it take so long."""
        self._seconds += seconds
        if self._seconds > OUT_OF_REACH_SECONDS and not self.lost:
            self.lost = True
            emit("response.out_of_reach", seconds=round(self._seconds, 1))

    def record_success(self) -> None:
        """There is word of the response."""
        if self.lost:
            emit("response.back", seconds=round(self._seconds, 1))
        self._seconds, self.lost = 0.0, False
