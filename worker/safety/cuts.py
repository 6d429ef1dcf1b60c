"""Requests that something on the way cut after the same time each: the mark of a proxy's own time limit.

Pure. Must not know: what follows from it (`retry`), how it is told (`words`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from worker.jobs.record import Attempt, JobError

UNANSWERED: Final = "cut_before_answer"
"""The flag of an attempt that was sent and cut before even headers came: unlike one that met no connection."""

_LEAST: Final = 1.0  # seconds; what breaks sooner was cut by no clock
_ALIKE: Final = 0.1  # of the duration, by which two cuts of one clock may differ
_SLACK: Final = 0.5  # seconds, likewise
_CUT: Final = frozenset({"stream_cut", "no_terminal", "empty_stream", "half_frame"})
_GATEWAY: Final = frozenset({408, 499, 502, 504, 524})
"""Statuses with which gateways tell that they gave up waiting (nginx, haproxy, load balancers, edges)."""


class ConnectionCuts(NamedTuple):
    """How often in a row, and after how many seconds each."""

    times: int
    seconds: float


def cuts_alike(attempts: Sequence[Attempt]) -> ConnectionCuts | None:
    """The cuts after one and the same time that end this list of finished attempts; None when the last was none."""
    lasted: list[float] = []
    for attempt in reversed(attempts):
        seconds = _cut_after(attempt)
        if seconds is None or (lasted and abs(seconds - lasted[0]) > lasted[0] * _ALIKE + _SLACK):
            break
        lasted.append(seconds)
    return ConnectionCuts(len(lasted), sum(lasted) / len(lasted)) if lasted else None


def _cut_after(attempt: Attempt) -> float | None:
    """The seconds after which something on the way cut this attempt before any output; None when nothing did."""
    if attempt.finished_at is None or attempt.first_output_at is not None or not _was_cut(attempt.error, attempt.flags):
        return None
    seconds = (attempt.finished_at - attempt.started_at).total_seconds()
    return seconds if seconds >= _LEAST else None


def _was_cut(error: JobError | None, flags: tuple[str, ...]) -> bool:
    if error is None:
        return False
    said = error.provider
    gateway = said is not None and said.http_status in _GATEWAY and said.code is None and said.type is None
    return gateway or error.code in _CUT or UNANSWERED in flags
