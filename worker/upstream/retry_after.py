"""Reads how long the provider asks to wait, in Retry-After headers and in messages.

Pure. The result is always None or a number of seconds from 0 to `MAX_SECONDS`, so that adding it to a time can't
overflow. `MAX_SECONDS` is longer than the longest deadline of a run: such a wait ends at the job's deadline, not
earlier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from worker.http_headers import parse_http_date, parse_number, parse_retry_after

MAX_SECONDS: Final = 8 * 86_400.0
"""Seconds; a run may last 7 days at most."""

_MAX_SEARCHED: Final = 4000
_WAIT_PHRASE: Final = re.compile(r"(?:try again|retry)\s+(?:in|after)\s+", re.IGNORECASE)
_SPAN: Final = re.compile(
    r"\s*(?:and\s+)?(\d{1,12}(?:\.\d{1,9})?)\s*"
    r"(milliseconds?|ms|minutes?|mins?|m|seconds?|secs?|s|hours?|hrs?|h|days?|d)(?![a-z])",
    re.IGNORECASE,
)
_UNIT_SECONDS: Final = {"ms": 0.001, "m": 60.0, "s": 1.0, "h": 3600.0, "d": 86400.0}


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that an answer's headers ask to wait, or None if they ask for none.

    `retry-after-ms` counts before `retry-after`, which is read as `parse_retry_after` says.
    """
    millis = parse_number(headers.get("retry-after-ms"))
    if millis is not None:
        return min(millis / 1000, MAX_SECONDS)
    # the server's own clock is the better measure of its date
    seconds = parse_retry_after(headers.get("retry-after"), parse_http_date(headers.get("date")) or now)
    return None if seconds is None else min(seconds, MAX_SECONDS)


def delay_in_message(message: str) -> float | None:
    """Return the seconds of "try again in 1m2s" and the like, or None: a stream has no field for it."""
    phrase = _WAIT_PHRASE.search(message, 0, _MAX_SEARCHED)
    if phrase is None:
        return None
    at, seconds, found = phrase.end(), 0.0, False
    while span := _SPAN.match(message, at):
        unit = span[2].lower()
        unit = "ms" if unit.startswith(("ms", "mil")) else unit[0]
        seconds += float(span[1]) * _UNIT_SECONDS[unit]
        at, found = span.end(), True
    return min(round(seconds, 6), MAX_SECONDS) if found else None
