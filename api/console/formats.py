"""Text forms of values in pages: times, durations, counts, money. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from worker.jobs.timestamps import iso_utc

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_THOUSAND: Final = 1_000


def as_time(value: datetime | str) -> datetime:
    """Return the time of a datetime or of ISO text."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def iso(value: datetime | str) -> str:
    """Return the time for machines."""
    return iso_utc(as_time(value), "milliseconds")


def exact(value: datetime | str) -> str:
    """Return the exact time for people."""
    return as_time(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def relative(value: datetime | str, now: datetime) -> str:
    """Return how long ago the time was, or in how long it is: `3 min ago`, `in 2 h`."""
    seconds = (now - as_time(value)).total_seconds()
    if abs(seconds) < 1:
        return "now"
    text = duration(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def duration(seconds: float | None) -> str:
    """Return a length of time in at most two units; a dash for one that is not known."""
    if seconds is None:
        return "\u2013"
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * _THOUSAND:.0f} ms"
    if seconds < 10:  # noqa: PLR2004  so short that a tenth matters
        return f"{seconds:.1f} s"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < _HOUR:
        rest = f" {whole % _MINUTE:02d} s" if whole % _MINUTE and whole < 10 * _MINUTE else ""
        return f"{whole // _MINUTE} min{rest}"
    if whole < _DAY:
        minutes = whole % _HOUR // _MINUTE
        return f"{whole // _HOUR} h" + (f" {minutes:02d} min" if minutes else "")
    hours = whole % _DAY // _HOUR
    return f"{whole // _DAY} d" + (f" {hours} h" if hours else "")


def count(value: float | None) -> str:
    """Return a whole number with spaces between thousands; a dash for one that is not known."""
    return "\u2013" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def percent(share: float | None) -> str:
    """Return a share from 0 to 1 in percent; a dash for one that is not known."""
    if share is None:
        return "\u2013"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"  # noqa: PLR2004  one digit matters


def words(code: str) -> str:
    """Return a code as words: `offer_accepted` as `offer accepted`."""
    return code.replace("_", " ").replace(".", " ")


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "iso": iso,
    "exact": exact,
    "relative": relative,
    "duration": duration,
    "count": count,
    "percent": percent,
    "words": words,
}
