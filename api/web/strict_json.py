"""Parses JSON strictly: refuses duplicate keys, numbers that no double holds, half surrogate pairs and deep nesting.

Linear in the length, and each call into C is short, because it holds the interpreter. So the number of lists and
objects is limited: 350,000 of them take ten times as long as 350,000 numbers, most of it in the garbage collector. And
in a large body duplicate keys are counted here: jiter takes three times as long when it looks for them. Pure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

import jiter

from api.web.problems import Problem

MAX_CONTAINERS_PER_MIB: Final = 100_000
"""Lists and objects in a body, for each MiB that a body may have; a MiB of messages of one letter has 55,000."""
_MIB: Final = 2**20
_LARGE: Final = 64 * 1024
_QUOTE, _COLON = b'":'
_CONTAINER_TYPES: Final = frozenset({list, dict})

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
# a run is tried at its first digit only: `\d{4000}` alone tries at each one, which took 9 s for a body of 1 MiB
_LONG_INTEGER: Final = re.compile(r"(?<![0-9])[0-9]{4000}")
_LARGE_EXPONENT: Final = re.compile(rb"[eE]\+?0*+[1-9][0-9]{2}")
_DIGITS_AS_ZEROS: Final = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))  # noqa: PLR2004  ASCII
_MANY_DIGITS: Final = b"0" * 200
_STRING_OR_MARK: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{:]', re.DOTALL)
"""A string without its end reaches to the end of the text, so that no quote in it is tried as a beginning."""


def parse_json(raw: bytes, limit: int = _MIB) -> Any:
    """Parse JSON; raise a Problem: 400 if it is not JSON, 422 if it is JSON that is refused.

    `limit`: the bytes that a body may have.
    """
    large = len(raw) > _LARGE
    keys = _count_keys(raw, MAX_CONTAINERS_PER_MIB * max(1, limit // _MIB)) if large else 0
    try:
        value = jiter.from_json(raw, catch_duplicate_keys=not large, allow_inf_nan=False)
    except ValueError:
        raise _reason(raw) from None
    if large and keys != sum(len(one) for one in _containers(value) if isinstance(one, dict)):
        raise _duplicate_key()
    if (not large or _may_have_infinity(raw)) and _has_infinity(value):  # a small value is read faster than its text
        raise _number_out_of_range()
    return value


def _count_keys(raw: bytes, most: int) -> int:
    """Return how many keys the objects of the text have; raise a Problem (422) for more than `most` containers."""
    keys = containers = 0
    for match in _STRING_OR_MARK.finditer(raw):
        mark = raw[match.start()]
        if mark == _COLON:
            keys += 1
        elif mark != _QUOTE:
            containers += 1
            if containers > most:
                detail = f"The body has more than {most} lists and objects; send long data as text."
                raise Problem(422, "too_many_values", detail)
    return keys


def _containers(value: Any) -> Iterator[list[Any] | dict[str, Any]]:
    """Yield every list and object of a value."""
    left: list[Any] = [[value]]
    while left:
        one = left.pop()
        yield one
        left += [inner for inner in (one.values() if type(one) is dict else one) if type(inner) in _CONTAINER_TYPES]


def _may_have_infinity(raw: bytes) -> bool:
    """Return False if no number is over 1.8e308: none has 200 digits in a row, and none an exponent of three."""
    return _MANY_DIGITS in raw.translate(_DIGITS_AS_ZEROS) or _LARGE_EXPONENT.search(raw) is not None


def _has_infinity(value: Any) -> bool:
    """Return whether a number in the value was too large for a float."""
    left: list[Any] = [value] if type(value) in _CONTAINER_TYPES else [[value]]
    for one in left:  # it grows meanwhile
        for inner in one.values() if type(one) is dict else one:
            kind = type(inner)
            if kind is str:
                continue
            if kind is dict or kind is list:
                left.append(inner)
            elif kind is float and not math.isfinite(inner):
                return True
    return False


class _DuplicateKey(Exception):
    """An object has the same key twice."""


def _reason(raw: bytes) -> Problem:
    """Return why the parser refused the body: 400 if it is not JSON by the grammar, 422 if it is."""
    try:
        text = raw.decode()
        json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=float)
    except _DuplicateKey:
        return _duplicate_key()
    except RecursionError:
        return _too_deep()
    except ValueError:
        return Problem(400, "malformed_json", "The body is not JSON (RFC 8259).")
    if _SURROGATE.search(text):
        return Problem(422, "lone_surrogate", "A string of the body contains half a surrogate pair.")
    return _number_out_of_range() if _LONG_INTEGER.search(text) else _too_deep()


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _DuplicateKey
    return out


def _refuse_constant(_: str) -> Any:
    raise ValueError


def _duplicate_key() -> Problem:
    return Problem(422, "duplicate_key", "An object of the body has the same key twice.")


def _too_deep() -> Problem:
    return Problem(422, "too_deep", "The body is nested deeper than 200 levels.")


def _number_out_of_range() -> Problem:
    return Problem(422, "number_out_of_range", "A number of the body is too large for a double.")
