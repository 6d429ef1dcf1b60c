"""Reads request bodies: limited in size, JSON only, and strict. Must not know what the JSON means."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import jiter
from starlette.requests import ClientDisconnect, Request

from api.runtime.request_limits import slot_of
from api.web.params import header_values
from api.web.problems import Problem
from api.web.receipt import body_has_begun

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body; raise a Problem (413) as soon as it is known to be longer than `limit` bytes."""
    if any(
        declared.isdigit() and int(declared) > limit for declared in header_values(request.scope, b"content-length")
    ):
        raise _too_large(limit)
    chunks, size, more, slot = list[bytes](), 0, True, slot_of(request.scope)
    while more:
        if not body_has_begun(request.scope):
            slot.rest()  # the client decides how long this takes
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    await slot.resume()
    return b"".join(chunks)


async def read_json(request: Request, limit: int) -> Any:
    """Return the body as JSON values.

    Raises a Problem: 415 if it is not declared as JSON, 400 if it is not JSON, 422 if it is JSON that `parse_json`
    refuses.
    """
    _check_type(request)
    return parse_json(await read_body(request, limit))


async def read_optional_json(request: Request, limit: int) -> Any:
    """Return the body as JSON values, or {} if there is none. Raises as `read_json`."""
    raw = await read_body(request, limit)
    if not raw:
        return {}
    _check_type(request)
    return parse_json(raw)


def _check_type(request: Request) -> None:
    sent = header_values(request.scope, b"content-type")
    kind, _, rest = (sent[0] if len(sent) == 1 else "").lower().partition(";")
    kind, rest = kind.strip(), rest.strip().replace('"', "")
    json_like = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if not json_like or (rest.startswith("charset=") and rest != "charset=utf-8"):
        raise Problem(415, "unsupported_media_type", "Send UTF-8 JSON, with Content-Type: application/json.")
    if any(coding.lower() != "identity" for coding in header_values(request.scope, b"content-encoding")):
        raise Problem(415, "unsupported_media_type", "Send the body without Content-Encoding.")


def parse_json(raw: bytes) -> Any:
    """Parse JSON; refuse duplicate keys, NaN, infinities, lone surrogates and nesting over 200 with a Problem."""
    try:
        value = jiter.from_json(raw, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError:
        raise _reason(raw) from None
    if _has_infinity(value):
        raise _number_out_of_range()
    return value


def _has_infinity(value: Any) -> bool:
    """Return whether a number in the value was too large for a float."""
    if isinstance(value, dict):
        return any(_has_infinity(inner) for inner in value.values() if not isinstance(inner, str))
    if isinstance(value, list):
        return any(_has_infinity(inner) for inner in value if not isinstance(inner, str))
    return isinstance(value, float) and not math.isfinite(value)


class _DuplicateKey(Exception):
    """An object has the same key twice."""


def _reason(raw: bytes) -> Problem:
    """Return why the parser refused the body: 400 if it is not JSON by the grammar, 422 if it is."""
    try:
        text = raw.decode()
        json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=float)
    except _DuplicateKey:
        return Problem(422, "duplicate_key", "An object of the body has the same key twice.")
    except RecursionError:
        return _too_deep()
    except ValueError:
        return Problem(400, "malformed_json", "The body is not JSON (RFC 8259).")
    if _SURROGATE.search(text):
        return Problem(422, "lone_surrogate", "A string of the body contains half a surrogate pair.")
    return _number_out_of_range() if re.search(r"\d{4000}", text) else _too_deep()


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _DuplicateKey
    return out


def _refuse_constant(_: str) -> Any:
    raise ValueError


def _too_deep() -> Problem:
    return Problem(422, "too_deep", "The body is nested deeper than 200 levels.")


def _number_out_of_range() -> Problem:
    return Problem(422, "number_out_of_range", "A number of the body is too large for a double.")


def _too_large(limit: int) -> Problem:
    return Problem(413, "body_too_large", f"The body is longer than {limit} bytes.")
