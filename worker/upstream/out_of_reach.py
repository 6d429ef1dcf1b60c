"""Reports when a running response can't be reached for long: one event when it gets long, one when it ends.

Reads no clock: the caller passes the durations.
"""

from __future__ import annotations

from typing import Final

from worker.telemetry.events import emit

OUT_OF_REACH_SECONDS: Final = 30.0
"""Seconds without an answer about the response after which it is out of reach."""


class Reachability:
    """The reachability of one response; each time that it is out of reach gives at most two log lines."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self.lost = False
        """True once the response was reported as out of reach."""

    def record_failure(self, seconds: float) -> None:
        """Record a request without an answer; `seconds` include the wait after it."""
        self._seconds += seconds
        if self._seconds > OUT_OF_REACH_SECONDS and not self.lost:
            self.lost = True
            emit("response.out_of_reach", seconds=round(self._seconds, 1))

    def record_success(self) -> None:
        """Record an answer about the response."""
        if self.lost:
            emit("response.back", seconds=round(self._seconds, 1))
        self._seconds, self.lost = 0.0, False
