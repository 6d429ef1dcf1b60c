"""Tolerant readers of single fields: the right type or nothing.

Pure. A provider may send anything; nothing here raises, and every string that is kept has a length limit.
"""

from __future__ import annotations

import re
from typing import Any, Final

from worker.jobs.record import Usage

MAX_MESSAGE: Final = 500
_SEARCHED: Final = 4000
_ASKS_TO_WAIT: Final = re.compile(r"(?:try again|retry)\s+(?:in|after)\s+", re.IGNORECASE)
_SPAN: Final = re.compile(
    r"\s*(?:and\s+)?(\d{1,12}(?:\.\d{1,9})?)\s*"
    r"(milliseconds?|ms|minutes?|mins?|m|seconds?|secs?|s|hours?|hrs?|h|days?|d)(?![a-z])",
    re.IGNORECASE,
)
_SECONDS: Final = {"ms": 0.001, "m": 60.0, "s": 1.0, "h": 3600.0, "d": 86400.0}


def text(value: object, limit: int = 128) -> str | None:
    """A non-empty string, cut to `limit` characters; else None."""
    return value[:limit] if type(value) is str and value else None


def whole(value: object) -> int | None:
    """A non-negative integer; else None."""
    return value if type(value) is int and value >= 0 else None


def table(value: object) -> dict[str, Any]:
    """An object; else an empty one."""
    return value if type(value) is dict else {}


def words(value: object, most: int = 8, limit: int = 64) -> tuple[str, ...]:
    """The strings of a list, a handful at most, each cut to `limit`; else nothing."""
    if type(value) is not list:
        return ()
    return tuple(item[:limit] for item in value if type(item) is str and item)[:most]


def usage_of(value: object) -> Usage | None:
    """The tokens of a Responses `usage`, None when it counts nothing."""
    data = table(value)
    spent, made = whole(data.get("input_tokens")), whole(data.get("output_tokens"))
    if spent is None and made is None:
        return None
    total = whole(data.get("total_tokens"))
    return Usage(
        input_tokens=spent or 0,
        cached_input_tokens=whole(table(data.get("input_tokens_details")).get("cached_tokens")) or 0,
        output_tokens=made or 0,
        reasoning_tokens=whole(table(data.get("output_tokens_details")).get("reasoning_tokens")) or 0,
        total_tokens=(spent or 0) + (made or 0) if total is None else total,
    )


def delay_in(message: str) -> float | None:
    """The seconds of "try again in 1m2s" and its kin: the wire has no field for it inside a stream."""
    asked = _ASKS_TO_WAIT.search(message, 0, _SEARCHED)
    if asked is None:
        return None
    at, seconds, found = asked.end(), 0.0, False
    while span := _SPAN.match(message, at):
        unit = span[2].lower()
        unit = "ms" if unit.startswith(("ms", "mil")) else unit[0]
        seconds += float(span[1]) * _SECONDS[unit]
        at, found = span.end(), True
    return round(seconds, 6) if found else None
