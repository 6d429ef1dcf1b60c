"""Decides what a receiver's answer means and when a message is sent again. Pure: times and jitter are arguments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

from worker.http_headers import parse_retry_after

JITTER: Final = 0.2
MAX_RETRY_AFTER: Final = 7 * 86_400.0
"""A receiver may ask for a wait of up to a week; more counts as a week."""

_GONE: Final = 410
_THROTTLED_STATUSES: Final = frozenset({429, 503})


class TryVerdict(StrEnum):
    """The result of one try."""

    DELIVERED = "delivered"
    GONE = "gone"
    FAILED = "failed"


def verdict(status: int | None, error: str | None) -> TryVerdict:
    """Judge a try: 2xx acknowledges, 410 stops the endpoint, anything else fails, redirects and half answers too."""
    if status == _GONE:
        return TryVerdict.GONE
    if error is None and status is not None and 200 <= status < 300:  # noqa: PLR2004  the 2xx family
        return TryVerdict.DELIVERED
    return TryVerdict.FAILED


def next_delay(delays: Sequence[float], tries: int, jitter: float, retry_after: float | None = None) -> float | None:
    """Return the seconds from the `tries`-th failure (from 1) to the next try, or None if there is none left.

    `delays` are those between tries: the first try is made at once, so there is one more try than there are delays.
    `jitter` in [0, 1) spreads the delay by 20 % each way; never earlier than the receiver asked.
    """
    if tries > len(delays):
        return None
    spread = delays[tries - 1] * (1 - JITTER + 2 * JITTER * jitter)
    return max(spread, min(retry_after or 0.0, MAX_RETRY_AFTER))


def retry_after(status: int | None, value: str | None, now: datetime) -> float | None:
    """Return the seconds that a 429 or 503 asks to wait by its Retry-After, at most MAX_RETRY_AFTER, or None."""
    seconds = parse_retry_after(value, now) if status in _THROTTLED_STATUSES else None
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER)


def max_duration(delays: Sequence[float]) -> float:
    """Return the most seconds that can pass from the first try to the last, whatever waits a receiver asks for."""
    return sum(max(delay * (1 + JITTER), MAX_RETRY_AFTER) for delay in delays)
