"""Reads single fields tolerantly: a value of the right type or nothing.

Pure. A provider may send anything; nothing here raises, and every string that is kept has a length limit.
"""

from __future__ import annotations

import math
from datetime import date
from typing import Any, Final, NamedTuple

from worker.jobs.record import Usage

MAX_TOKENS_PER_ANSWER: Final = 10**9
"""A thousand times the largest context: a higher count is a server's mistake, and its price would be wrong."""
_MAX_INTEGER: Final = 2**53 - 1
_MAX_BITS: Final = 1024  # of a number that is read as text: Python refuses to write much larger ones
MAX_ID_LENGTH: Final = 4096
"""Characters of an id that is kept."""


def text(value: object, limit: int = 128) -> str | None:
    """Return a non-empty string, cut to `limit` characters, or None."""
    return value[:limit] if type(value) is str and value else None


def identifier(value: object) -> str | None:
    """Return an id of the provider, never cut: a part of an id names nothing. An integer is one too, as its digits."""
    if type(value) is int and value.bit_length() <= _MAX_BITS:
        return str(value)
    return value if type(value) is str and value else None


def bounded_identifier(value: object) -> str | None:
    """Return an id that is only stored for reference, or None if it is longer than an id should be."""
    name = identifier(value)
    return name if name is not None and len(name) <= MAX_ID_LENGTH else None


def text_or_number(value: object) -> str | None:
    """Return a piece of text; a number becomes its text, because some servers send digits as numbers."""
    if type(value) is str:
        return value
    if type(value) is int and value.bit_length() <= _MAX_BITS:
        return str(value)
    return repr(value) if type(value) is float and math.isfinite(value) else None


def non_negative(value: object) -> int | None:
    """Return a non-negative integer that JSON can express exactly, or None."""
    return value if type(value) is int and 0 <= value <= _MAX_INTEGER else None


def day(value: object) -> date | None:
    """Return a date written as YYYY-MM-DD, or None."""
    try:
        return date.fromisoformat(value) if type(value) is str else None
    except ValueError:
        return None


def mapping(value: object) -> dict[str, Any]:
    """Return an object, or an empty one."""
    return value if type(value) is dict else {}


def strings(value: object, count: int = 8, limit: int = 64) -> tuple[str, ...]:
    """Return the first strings of a list, each cut to `limit`."""
    if type(value) is not list:
        return ()
    return tuple(item[:limit] for item in value if type(item) is str and item)[:count]


class ReadUsage(NamedTuple):
    """The token counts of an answer, and flags if they were wrong."""

    usage: Usage | None
    flags: tuple[str, ...] = ()


def usage_of(value: object) -> ReadUsage:
    """Read a `usage` with the names of either API; its counts are None if there are none or they are implausible."""
    data = mapping(value)
    spent = _tokens(data, "input_tokens", "prompt_tokens")
    made = _tokens(data, "output_tokens", "completion_tokens")
    if spent is None and made is None:
        return ReadUsage(None)
    input_details = mapping(data.get("input_tokens_details") or data.get("prompt_tokens_details"))
    thought = mapping(data.get("output_tokens_details") or data.get("completion_tokens_details"))
    total = _tokens(data, "total_tokens")
    kept_long = _tokens(mapping(input_details.get("cache_write_tokens_details")), "ttl_12h_tokens") or 0
    counts = {
        "input_tokens": spent or 0,
        "cached_input_tokens": _tokens(input_details, "cached_tokens") or 0,
        "output_tokens": made or 0,
        "reasoning_tokens": _tokens(thought, "reasoning_tokens") or 0,
        "cache_write_tokens": max(_tokens(input_details, "cache_write_tokens") or 0, kept_long),
        "cache_write_12h_tokens": kept_long,
        "total_tokens": (spent or 0) + (made or 0) if total is None else total,
    }
    if max(counts.values()) > MAX_TOKENS_PER_ANSWER:
        return ReadUsage(None, ("usage_not_believed",))
    return ReadUsage(Usage(**counts))


def _tokens(data: dict[str, Any], *names: str) -> int | None:
    """Return the first of these fields that is a count, or None; some servers write 9.0."""
    for name in names:
        value = data.get(name)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is int and value >= 0:
            return value
    return None
