"""One payload of a stream or a body, from bytes to plain JSON values.

The only place that parses what the provider sent. Its errors carry no text of the payload.
"""

from __future__ import annotations

import json
import math
from typing import Final

import jiter

from worker.upstream.duplicate_keys import merge_pairs
from worker.upstream.halves import join_surrogates_in
from worker.upstream.wide_encodings import to_utf8

_MAX_DIGITS: Final = 310  # a float's; beyond them a number is as good as infinite

_ERROR_MARKERS: Final = (b"error", b"code", b"reason")
"""What a frame must name for a key that stands twice in it to hide an error; looking for such keys costs time."""


class BadJson(ValueError):
    """The payload is not JSON; says nothing of what it was."""


def parse(payload: bytes) -> object:
    """The JSON value of `payload`; invalid UTF-8 and lone surrogates become U+FFFD instead of an error."""
    try:
        return jiter.from_json(payload, catch_duplicate_keys=True)
    except ValueError:
        pass
    try:
        return join_surrogates_in(parse_surrogates(to_utf8(payload) or payload))
    except RecursionError:
        raise BadJson from None


def parse_frame(payload: bytes) -> object:
    """The JSON value of one event of a stream; ValueError for what `parse_surrogates` must read."""
    for word in _ERROR_MARKERS:
        if word in payload:
            return jiter.from_json(payload, catch_duplicate_keys=True)
    return jiter.from_json(payload)


def parse_surrogates(payload: bytes) -> object:
    """The JSON value of what jiter refuses, halves of surrogate pairs as they came: servers send one per delta."""
    try:
        return json.loads(payload.decode("utf-8", "replace"), parse_int=_integer, object_pairs_hook=merge_pairs)
    except (ValueError, RecursionError):
        raise BadJson from None


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf
