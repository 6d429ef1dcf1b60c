"""Translates the outcome of a call that some servers send beside the answer into error codes.

MiniMax: `"base_resp": {"status_code": 1026, "status_msg": "…"}`; the numbers are from its list of error codes, and 0 is
no error. Gemini: `"promptFeedback": {"blockReason": "SAFETY"}`, only for a prompt that was withheld. Pure.
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


OUTCOME_KEYS: Final = ("base_resp", "prompt_feedback", "promptFeedback")
"""The fields that hold an outcome."""


def outcome_code(data: dict[str, Any]) -> str | None:
    """Return the code of the outcome beside an answer, or None if it is no error or there is none."""
    code = _base_resp_code(data.get("base_resp"))
    if code is None and any(_is_withheld(data.get(key)) for key in OUTCOME_KEYS[1:]):
        code = "content_filter"
    return code


def _is_withheld(feedback: object) -> bool:
    """Return whether Gemini's feedback gives a reason for which the prompt was withheld."""
    for entry in feedback if type(feedback) is list else [feedback]:
        if type(entry) is dict:
            reason = entry.get("block_reason", entry.get("blockReason"))
            if type(reason) is str and reason.strip() and not reason.strip().upper().endswith("UNSPECIFIED"):
                return True
    return False


def _base_resp_code(value: object) -> str | None:
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
