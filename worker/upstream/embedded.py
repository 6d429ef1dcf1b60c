"""Finds JSON objects inside a text: a gateway's message may quote the provider's error body.

`litellm.BadRequestError: OpenAIException - {"error":{…}}. Received Model Group=…`, `Error code: 400 - {'error': {…}}`
(the OpenAI SDK prints a dict as Python does), an escaped body inside a string, a body that was cut in the middle. Only
objects are read, never the prose around them, and objects within prose count only if they have an `error`.
Pure; the work is linear in the text's length.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import jiter

MAX_TEXT: Final = 64 * 1024
_MAX_CANDIDATES: Final = 12
_MAX_ESCAPE_LEVELS: Final = 4  # of escaping
_MAX_PYTHON_LENGTH: Final = 16 * 1024
_MAX_DEPTH: Final = 100
_BEGINS: Final = re.compile(r"""\{\s{0,16}(\\{0,16})(["'])""")
_ESCAPED: Final = re.compile(r'\\(["\\/])')
_PYTHON_LITERALS: Final = {"None": "null", "True": "true", "False": "false", "inf": "Infinity", "nan": "NaN"}
_ERROR_KEYS: Final = ("error", "errors")
_WRAPPER_KEYS: Final = ("detail", "response", "body", "data")


def collect_copies(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object in which a key that was given more than once has the list of its values."""
    data = dict(pairs)
    if len(data) < len(pairs):
        copies: dict[str, list[Any]] = {}
        for name, value in pairs:
            copies.setdefault(name, []).append(value)
        data = {name: values if len(values) > 1 else values[0] for name, values in copies.items()}
    return data


_JSON: Final = json.JSONDecoder(strict=False, object_pairs_hook=collect_copies)


def parse_full(text: str) -> dict[str, Any] | list[Any] | None:
    """Return the object or list if the full `text` is one, escaped or not; else None."""
    text = text[:MAX_TEXT].strip()
    for _ in range(_MAX_ESCAPE_LEVELS + 1):
        if text[:1] not in ("{", "[", '"'):
            return None
        value, end = _json(text, 0, cut=False)
        if type(value) in (dict, list) and end == len(text):
            return value  # type: ignore[return-value]  # one of the two
        bare = value.strip() if type(value) is str and end == len(text) else _ESCAPED.sub(r"\1", text)
        if bare == text:
            return None
        text = bare
    return None


def find_errors(text: str) -> list[dict[str, Any]]:
    """Return the error bodies that a text quotes: JSON objects that contain an error."""
    return [body for data in find_objects(text) if (body := _find_envelope(data)) is not None]


def _find_envelope(data: dict[str, Any], depth: int = 0) -> dict[str, Any] | None:
    """Return `data`, or the object in it, that has an error among its keys; else None."""
    if any(data.get(key) for key in _ERROR_KEYS):
        return data
    inner = (data.get(key) for key in _WRAPPER_KEYS) if depth < _MAX_ESCAPE_LEVELS else ()
    found = (_find_envelope(one, depth + 1) for one in inner if type(one) is dict)
    return next((one for one in found if one is not None), None)


def find_objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects in `text`, in order; a dict printed by Python counts as JSON."""
    text = text[:MAX_TEXT]
    found, escaped = _search(text)
    for _ in range(_MAX_ESCAPE_LEVELS):
        if not escaped:
            break
        text = _ESCAPED.sub(r"\1", text)
        more, escaped = _search(text)
        found += more
    return found


def _search(text: str) -> tuple[list[dict[str, Any]], bool]:
    """Return the objects, and whether one with escaped quotes seems to begin."""
    found: list[dict[str, Any]] = []
    at, escaped = 0, False
    for _ in range(_MAX_CANDIDATES):
        begin = _BEGINS.search(text, at)
        if begin is None:
            break
        at = begin.end()
        if begin[1]:
            escaped = True
            continue
        value, end = _json(text, begin.start()) if begin[2] == '"' else _python(text, begin.start())
        if type(value) is dict:
            found.append(value)
            at = max(at, end)
    return found, escaped


def _json(text: str, start: int, *, cut: bool = True) -> tuple[object, int]:
    """Return the value at `start` and where it ends; `cut`: the end of the text may cut it off."""
    try:
        return _JSON.raw_decode(text, start)
    except (ValueError, RecursionError):
        pass
    if not cut:
        return _python(text, start)
    try:
        return jiter.from_json(text[start:].encode("utf-8", "replace"), partial_mode="trailing-strings"), len(text)
    except ValueError:
        return _python(text, start)


def _python(text: str, start: int) -> tuple[object, int]:
    """Return the dict that Python printed at `start` and where it ends; None if there is none or it is cut off."""
    out: list[str] = []
    at, end, depth = start, min(len(text), start + _MAX_PYTHON_LENGTH), 0
    while at < end:
        char = text[at]
        if char in "\"'":
            piece, at = _string(text, at, end)
            out.append(piece)
            continue
        if char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
        elif char in "NTFin":
            word = next((w for w in _PYTHON_LITERALS if text.startswith(w, at)), char)
            out.append(_PYTHON_LITERALS.get(word, char))
            at += len(word)
            continue
        out.append(char)
        at += 1
        if depth == 0 or depth > _MAX_DEPTH:
            break
    try:
        return _JSON.decode("".join(out)), at
    except (ValueError, RecursionError):
        return None, at


def _string(text: str, at: int, end: int) -> tuple[str, int]:
    """Return the string at `at` in JSON's notation, and where it ends."""
    quote, out = text[at], ['"']
    at += 1
    while at < end and (char := text[at]) != quote:
        if char == "\\" and at + 1 < end:
            after = text[at + 1]
            if after == "x":
                out.append("\\u00")
            elif after in '"\\/bfnrtu':
                out.append(char + after)
            else:
                out.append(after)
            at += 2
            continue
        out.append('\\"' if char == '"' else char)
        at += 1
    out.append('"')
    return "".join(out), at + 1
