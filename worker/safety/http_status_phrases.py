"""Recognises codes that only repeat an HTTP status: `404`, `"400"`, `forbidden`, `NotFoundError`.

Gateways put them where the provider had a real code or none (LiteLLM: `"code": "404"`; vLLM: `"type": "NotFoundError",
"code": 404`; Google's gRPC names), so they must not count as an unknown code. Pure.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

_NUMBER: Final = re.compile(r"(?:http|status|error|code)*([1-5][0-9]{2})(?:error)?")
_PROCESS_CODE: Final = re.compile(r"-?[0-9]{1,2}")  # a gRPC or process code: 0, 3, 13, -1
_PUNCTUATION: Final = re.compile(r"[^a-z0-9]")
_ENDINGS: Final = ("error", "exception")

_NO_CODE_WORDS: Final = frozenset(
    {"none", "null", "nil", "undefined", "unknown", "na", "aboutblank", "requests", "tokens"}
)
"""Words for "no code": LiteLLM writes Python's None as a string, OpenAI's `type` names the counter of a rate limit."""

_STATUS_BY_NAME: Final[dict[str, int]] = {
    # names of exceptions (openai, LiteLLM, vLLM) and classes of errors, without their ending
    "invalidrequest": 400,
    "invalidargument": 400,
    "failedprecondition": 400,
    "outofrange": 400,
    "validation": 400,
    "requestvalidation": 422,
    "authentication": 401,
    "unauthenticated": 401,
    "permission": 403,
    "permissiondenied": 403,
    "accessdenied": 403,
    "requestforbidden": 403,
    "resourcenotfound": 404,
    "notfounderr": 404,
    "payloadtoolarge": 413,
    "requestentitytoolarge": 413,
    "contenttoolarge": 413,
    "unprocessablecontent": 422,
    "unprocessableentity": 422,
    "ratelimit": 429,
    "resourceexhausted": 429,
    "throttling": 429,
    "internal": 500,
    "internalserver": 500,
    "server": 500,
    "api": 500,
    "apiconnection": 500,
    "apistatus": 500,
    "unavailable": 503,
    "overloaded": 503,
    "timeout": 504,
    "apitimeout": 504,
    "deadlineexceeded": 504,
}


def _squeeze(word: str) -> str:
    return _PUNCTUATION.sub("", word.lower())


_PHRASES: Final = {_squeeze(s.phrase): s.value for s in HTTPStatus if s.value >= HTTPStatus.BAD_REQUEST}
_STATUSES: Final = _PHRASES | _STATUS_BY_NAME


def status_in(word: str) -> int | None:
    """Return the HTTP status that `word` repeats, or None if it repeats none."""
    name = _squeeze(word)
    if (number := _NUMBER.fullmatch(name)) is not None:
        return int(number[1])
    if name in _STATUSES:
        return _STATUSES[name]
    for ending in _ENDINGS:
        if name.endswith(ending) and name.removesuffix(ending) in _STATUSES:
            return _STATUSES[name.removesuffix(ending)]
    return None


def is_blank(word: str) -> bool:
    """Return whether a word says no more than an HTTP status or "no code" does."""
    return (
        "://" in word  # the address of a page about a class of errors (RFC 9457's `type`)
        or _squeeze(word) in _NO_CODE_WORDS
        or _PROCESS_CODE.fullmatch(word) is not None
        or status_in(word) is not None
    )
