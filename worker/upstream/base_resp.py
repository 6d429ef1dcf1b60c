"""Translates MiniMax's `base_resp`, the outcome of a call beside its answer, into error codes.

Its form is `"base_resp": {"status_code": 1026, "status_msg": "…"}`; the numbers are from MiniMax's list of error codes,
and 0 is no error. Pure.
"""

from __future__ import annotations

from typing import Any, Final, cast

_MEANINGS: Final[dict[str, str]] = {
    "1000": "unknown_error",
    "1001": "request_timeout",
    "1002": "rate_limit_exceeded",
    "1004": "invalid_api_key",
    "1008": "credit_balance_exhausted",
    "1013": "internal_error",
    "1024": "internal_error",
    "1026": "content_filter",  # the input is sensitive
    "1027": "content_filter",  # the output is
    "1033": "upstream_error",
    "1039": "rate_limit_exceeded",  # of tokens
    "1041": "rate_limit_exceeded",  # of connections
    "1042": "invalid_request_error",  # invisible characters
    "2013": "invalid_request_error",
    "2049": "invalid_api_key",
    "2056": "usage_limit_exceeded",
}


def code_in(value: object) -> str | None:
    """Return the code of a `base_resp` (an unknown number as `base_resp_<number>`), or None if it is no error."""
    for entry in value if type(value) is list else [value]:
        number = cast("dict[str, Any]", entry).get("status_code") if type(entry) is dict else None
        word = str(number) if type(number) is int and abs(number) < _MAX_NUMBER else number
        if type(word) is str and (word := word.strip()) not in _NO_ERROR:
            return _MEANINGS.get(word, f"base_resp_{word[:_MAX_LENGTH]}")
    return None


_MAX_NUMBER: Final = 10**15
_MAX_LENGTH: Final = 32
_NO_ERROR: Final = ("", "0")
