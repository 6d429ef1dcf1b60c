"""Requests that something on the way cut after the same time each: the mark of a proxy's own time limit.

Pure. Must not know: what follows from it (`retry`), how it is told (`words`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from worker.jobs.record import Attempt, JobError

UNANSWERED: Final = "cut_before_answer"
"""The flag of an attempt that was sent and cut before even headers came: unlike one that met no connection."""

_MIN_SECONDS: Final = 1.0  # seconds; what breaks sooner was cut by no clock
_TOLERANCE_SHARE: Final = 0.1  # of the duration, by which two cuts of one clock may differ
_TOLERANCE_SECONDS: Final = 0.5  # seconds, likewise
_CUT_CODES: Final = frozenset({"stream_cut", "no_terminal", "empty_stream", "half_frame"})
_GATEWAY_STATUSES: Final = frozenset({408, 499, 502, 504, 524})
"""Statuses with which gateways tell that they gave up waiting (nginx, haproxy, load balancers, edges)."""


class ConnectionCuts(NamedTuple):
    """How often in a row, and after how many seconds each."""

    times: int
    seconds: float


def repeated_cuts(attempts: Sequence[Attempt]) -> ConnectionCuts | None:
    """The cuts after one and the same time that end this list of finished attempts; None when the last was none."""
    lasted: list[float] = []
    for attempt in reversed(attempts):
        seconds = _cut_after(attempt)
        if seconds is None or (lasted and abs(seconds - lasted[0]) > lasted[0] * _TOLERANCE_SHARE + _TOLERANCE_SECONDS):
            break
        lasted.append(seconds)
    return ConnectionCuts(len(lasted), sum(lasted) / len(lasted)) if lasted else None


def _cut_after(attempt: Attempt) -> float | None:
    """The seconds after which something on the way cut this attempt before any output; None when nothing did."""
    if attempt.finished_at is None or attempt.first_output_at is not None or not _was_cut(attempt.error, attempt.flags):
        return None
    seconds = (attempt.finished_at - attempt.started_at).total_seconds()
    return seconds if seconds >= _MIN_SECONDS else None


def _was_cut(error: JobError | None, flags: tuple[str, ...]) -> bool:
    if error is None:
        return False
    said = error.provider
    gateway = said is not None and said.http_status in _GATEWAY_STATUSES and said.code is None and said.type is None
    return gateway or error.code in _CUT_CODES or UNANSWERED in flags
