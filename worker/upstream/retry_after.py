"""Reads how long the provider asks to wait, in Retry-After headers and in messages.

Pure. The result is always None or a number of seconds from 0 to `MAX_SECONDS`, so that adding it to a time can't
overflow. `MAX_SECONDS` is longer than the longest deadline of a run: such a wait ends at the job's deadline, not
earlier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_SECONDS: Final = 8 * 86_400.0
"""Seconds; a run may last 7 days at most."""

_NUMBER: Final = re.compile(r"\d{1,400}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,4})?", re.ASCII)
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

    `retry-after-ms` counts before `retry-after`, which is a number of seconds or an HTTP date (RFC 9110, section
    10.2.3). A negative or invalid number is ignored, and so is a date that can't be read. A header that was sent twice
    means its longest wait.
    """
    millis = number(headers.get("retry-after-ms"))
    if millis is not None:
        return min(millis / 1000, MAX_SECONDS)
    value = headers.get("retry-after")
    seconds = number(value)
    if seconds is not None:
        return min(seconds, MAX_SECONDS)
    until = _date(value)
    if until is None:
        return None
    # the server's own clock is the better measure of its date
    return min(max(0.0, (until - (_date(headers.get("date")) or now)).total_seconds()), MAX_SECONDS)


def number(value: str | None) -> float | None:
    """Return the number in a header's value, never negative and always finite, or None."""
    parts = [part.strip() for part in value.split(",")] if value else []
    if not parts or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    return min(max(map(float, parts)), 1e300)  # a number that is too large for a float is infinite


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


def _date(value: str | None) -> datetime | None:
    try:
        at = parsedate_to_datetime(value) if value else None
    except (ValueError, OverflowError):
        return None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
