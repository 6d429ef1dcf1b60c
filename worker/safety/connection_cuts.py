"""Detects requests that were cut after the same time each: the mark of a proxy's time limit.

Pure. `retry` decides what follows, `messages` how it is explained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from worker.jobs.record import Attempt, JobError

UNANSWERED: Final = "cut_before_answer"
"""The flag of an attempt that was sent and cut before headers came, unlike one without a connection."""

_MIN_SECONDS: Final = 1.0  # an earlier break is not the work of a time limit
_TOLERANCE_SHARE: Final = 0.1  # share of the duration by which two cuts of one time limit may differ
_TOLERANCE_SECONDS: Final = 0.5  # added to it
_CUT_CODES: Final = frozenset({"stream_cut", "no_terminal", "empty_stream", "half_frame"})
_GATEWAY_STATUSES: Final = frozenset({408, 499, 502, 504, 524})
"""Statuses of gateways that gave up waiting (nginx, haproxy, load balancers, CDNs)."""


class ConnectionCuts(NamedTuple):
    """How many cuts in a row, and after how many seconds each."""

    times: int
    seconds: float


def repeated_cuts(attempts: Sequence[Attempt]) -> ConnectionCuts | None:
    """Return the cuts after the same time at the end of these finished attempts, or None if the last was no cut."""
    lasted: list[float] = []
    for attempt in reversed(attempts):
        seconds = _cut_after(attempt)
        if seconds is None or (lasted and abs(seconds - lasted[0]) > lasted[0] * _TOLERANCE_SHARE + _TOLERANCE_SECONDS):
            break
        lasted.append(seconds)
    return ConnectionCuts(len(lasted), sum(lasted) / len(lasted)) if lasted else None


def _cut_after(attempt: Attempt) -> float | None:
    """Return the seconds after which this attempt was cut before any output, or None if it was not."""
    if attempt.finished_at is None or attempt.first_output_at is not None or not _was_cut(attempt.error, attempt.flags):
        return None
    seconds = (attempt.finished_at - attempt.started_at).total_seconds()
    return seconds if seconds >= _MIN_SECONDS else None


def _was_cut(error: JobError | None, flags: tuple[str, ...]) -> bool:
    if error is None:
        return False
    provider = error.provider
    gateway = (
        provider is not None
        and provider.http_status in _GATEWAY_STATUSES
        and provider.code is None
        and provider.type is None
    )
    return gateway or error.code in _CUT_CODES or UNANSWERED in flags
