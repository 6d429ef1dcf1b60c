"""Whether a request is sent again, and after how many seconds.

Pure: time and randomness are arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

NOT_PROCESSED: Final = frozenset({429})
"""Statuses that say that nothing was done: any request may be sent again."""
TEMPORARY: Final = frozenset({429, 502, 503, 504})
"""Statuses after which a repeatable request is sent again."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long a client retries.

    The delay before retry n, counted from 0, is `first * 2**n` seconds, at most `longest`, less up to half of it at
    random. It is never shorter than the server's Retry-After; a Retry-After above `most_asked` ends the retries.
    """

    times: int = 5
    """How often one request is sent again."""
    patience: float = 60.0
    """For how many seconds `wait` and `events` try to reach an API that has gone away."""
    first: float = 0.25
    longest: float = 8.0
    most_asked: float = 60.0

    def delay(self, tries: int, jitter: float, retry_after: float | None = None) -> float | None:
        """Return the seconds to wait after `tries` tries, or None if `retry_after` is above `most_asked`."""
        if retry_after is not None and retry_after > self.most_asked:
            return None
        backoff: float = min(self.longest, self.first * 2 ** min(tries - 1, 30))
        return max(retry_after or 0.0, backoff * (1 - jitter / 2))


def may_repeat(*, repeatable: bool, status: int | None, sent: bool) -> bool:
    """Return whether it is safe to send the request again.

    `status` None: the connection failed; `sent`: after the request may have arrived.
    """
    if status is None:
        return repeatable or not sent
    return status in (TEMPORARY if repeatable else NOT_PROCESSED)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date, or None if there is none that can be read."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())
