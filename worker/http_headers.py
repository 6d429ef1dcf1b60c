"""Parses HTTP dates and Retry-After, for the provider's answers and for those of webhook receivers. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_NUMBER: Final = re.compile(r"\d{1,400}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,4})?", re.ASCII)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After asks to wait, never negative and always finite, or None.

    The value is a number of seconds or an HTTP date (RFC 9110, section 10.2.3), which is compared with `now`. An
    invalid or negative value is ignored. A header that was sent twice means its longest wait.
    """
    seconds = parse_number(value)
    if seconds is not None:
        return seconds
    until = parse_http_date(value)
    return None if until is None else max(0.0, (until - now).total_seconds())


def parse_number(value: str | None) -> float | None:
    """Return the number in a header's value, never negative and always finite, or None."""
    parts = [part.strip() for part in value.split(",")] if value else []
    if not parts or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    return min(max(map(float, parts)), 1e300)  # a number that is too large for a float is infinite


def parse_http_date(value: str | None) -> datetime | None:
    """Return the time of an HTTP date, or None if the value is none."""
    try:
        at = parsedate_to_datetime(value) if value else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
