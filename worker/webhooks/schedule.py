"""When a message is tried again, and what an answer means. Pure: time and dice come in as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

JITTER: Final = 0.2
LONGEST_RETRY_AFTER: Final = 7 * 86_400.0
"""A receiver may ask for a pause of up to a week; more is taken as a week."""

_GONE: Final = 410
_THROTTLED: Final = frozenset({429, 503})


class TryVerdict(StrEnum):
    """What one try came to."""

    DELIVERED = "delivered"
    GONE = "gone"
    FAILED = "failed"


def verdict(status: int | None, error: str | None) -> TryVerdict:
    """2xx acknowledges, 410 stops the endpoint, all else is a failure: redirects and half answers too."""
    if status == _GONE:
        return TryVerdict.GONE
    if error is None and status is not None and 200 <= status < 300:  # noqa: PLR2004  the 2xx family
        return TryVerdict.DELIVERED
    return TryVerdict.FAILED


def next_delay(delays: Sequence[float], tries: int, chance: float, retry_after: float | None = None) -> float | None:
    """Seconds from the `tries`-th failure (from 1) to the next try; None when there is none left.

    `delays` are those between tries: the first try is made at once, so there is one more try than there are delays.
    `chance` in [0, 1) spreads the delay by 20 % each way; never earlier than the receiver asked.
    """
    if tries > len(delays):
        return None
    spread = delays[tries - 1] * (1 - JITTER + 2 * JITTER * chance)
    return max(spread, min(retry_after or 0.0, LONGEST_RETRY_AFTER))


def retry_after(status: int | None, value: str | None, now: datetime) -> float | None:
    """The seconds that a 429 or 503 asks us to wait: a number or an HTTP date; None when it doesn't say."""
    if status not in _THROTTLED or value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())


def longest(delays: Sequence[float]) -> float:
    """The most seconds that can pass from the first try to the last, however often a receiver asks for patience."""
    return sum(max(delay * (1 + JITTER), LONGEST_RETRY_AFTER) for delay in delays)
