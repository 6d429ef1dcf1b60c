"""Formats points of time as ISO-8601 in UTC with Z, as all of Vigil's records and answers have them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal


def iso_utc(at: datetime, timespec: Literal["auto", "seconds", "milliseconds"] = "auto") -> str:
    """Return the time in UTC as `2026-07-01T12:00:00Z`, with fractions of a second as `timespec` says."""
    return at.astimezone(UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def iso_ms(at: datetime) -> str:
    """Return the time in UTC with milliseconds, such as 2026-07-01T12:00:00.000Z."""
    return iso_utc(at, "milliseconds")
