"""One payload of a stream or a body, from bytes to plain JSON values.

The only place that parses what the provider sent. Its errors carry no text of the payload.
"""

from __future__ import annotations

import json
import re
from typing import Final

import jiter

_LONE: Final = re.compile("[\ud800-\udfff]")


class BadJson(ValueError):
    """The payload is not JSON; says nothing of what it was."""


def parse(payload: bytes) -> object:
    """The JSON value of `payload`; invalid UTF-8 and lone surrogates become U+FFFD instead of an error."""
    try:
        return jiter.from_json(payload)
    except ValueError:
        pass
    # jiter refuses halves of a surrogate pair, which servers do send: one half per delta.
    try:
        return _mend(json.loads(payload.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        raise BadJson from None


def _mend(value: object) -> object:
    if isinstance(value, str):
        return _LONE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mend(item) for item in value]
    if isinstance(value, dict):
        return {_LONE.sub("\ufffd", key): _mend(item) for key, item in value.items()}
    return value
