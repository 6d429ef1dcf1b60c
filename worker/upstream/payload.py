"""One payload of a stream or a body, from bytes to plain JSON values.

The only place that parses what the provider sent. Its errors carry no text of the payload.
"""

from __future__ import annotations

import json
import math
from typing import Final

import jiter

from worker.upstream.halves import mended

_MOST_DIGITS: Final = 310  # a float's; beyond them a number is as good as infinite


class BadJson(ValueError):
    """The payload is not JSON; says nothing of what it was."""


def parse(payload: bytes) -> object:
    """The JSON value of `payload`; invalid UTF-8 and lone surrogates become U+FFFD instead of an error."""
    try:
        return jiter.from_json(payload)
    except ValueError:
        pass
    try:
        return mended(parse_halves(payload))
    except RecursionError:
        raise BadJson from None


def parse_halves(payload: bytes) -> object:
    """The JSON value of what jiter refuses, halves of surrogate pairs as they came: servers send one per delta."""
    try:
        return json.loads(payload.decode("utf-8", "replace"), parse_int=_integer)
    except (ValueError, RecursionError):
        raise BadJson from None


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf
