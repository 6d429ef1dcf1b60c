"""Parses one payload of a stream, or a body, from bytes to plain JSON values.

The only place that parses what the provider sent. Its errors carry no text of the payload.
"""

from __future__ import annotations

import json
import math
from typing import Final

import jiter

from worker.upstream.deep_json import cut_depth
from worker.upstream.duplicate_keys import merge_pairs
from worker.upstream.surrogates import join_surrogates_in
from worker.upstream.wide_encodings import to_utf8

_MAX_DIGITS: Final = 310  # a float's; beyond them a number is as good as infinite

_ERROR_MARKERS: Final = (b"error", b"code", b"reason")
"""Duplicate keys are looked for only in frames with one of these, because only there they can hide an error."""


class BadJson(ValueError):
    """The payload is not JSON; the error has none of its text."""


def parse(payload: bytes) -> object:
    """Parse `payload`; invalid UTF-8 and lone surrogates become U+FFFD. Raise BadJson if it is not JSON."""
    try:
        return jiter.from_json(payload, catch_duplicate_keys=True)
    except ValueError:
        pass
    payload = to_utf8(payload) or payload
    try:
        return join_surrogates_in(parse_surrogates(payload))
    except RecursionError:
        return join_surrogates_in(parse_surrogates(cut_depth(payload)))


def parse_frame(payload: bytes) -> object:
    """Parse one event of a stream; raise ValueError for what `parse_surrogates` must read."""
    for word in _ERROR_MARKERS:
        if word in payload:
            return jiter.from_json(payload, catch_duplicate_keys=True)
    return jiter.from_json(payload)


def parse_surrogates(payload: bytes) -> object:
    """Parse what jiter refuses, and keep lone surrogates: servers send half a pair per delta.

    What is nested too deep becomes null.
    """
    try:
        return _loads(payload)
    except RecursionError:
        pass
    except ValueError:
        raise BadJson from None
    try:
        return _loads(cut_depth(payload))
    except (ValueError, RecursionError):
        raise BadJson from None


def _loads(payload: bytes) -> object:
    return json.loads(payload.decode("utf-8", "replace"), parse_int=_integer, object_pairs_hook=merge_pairs)


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf
