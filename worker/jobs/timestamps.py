"""Formats times as Vigil's records, logs and messages have them."""

from __future__ import annotations

from datetime import datetime


def iso_ms(at: datetime) -> str:
    """Return a UTC time in ISO 8601 with milliseconds, such as 2026-07-01T12:00:00.000Z."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
