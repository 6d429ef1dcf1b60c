"""Reading a request's body: bounded, JSON only, and strictly. Must not know what the JSON means."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

import jiter
from starlette.requests import ClientDisconnect, Request

from api.web.params import header
from api.web.problems import Problem

_LONE: Final = re.compile(r"\\u[dD][89a-fA-F]")


async def read(request: Request, limit: int) -> bytes:
    """The body's bytes; 413 as soon as it is known to be longer than `limit`."""
    if any(declared.isdigit() and int(declared) > limit for declared in header(request.scope, b"content-length")):
        raise _too_large(limit)
    chunks, size, more = list[bytes](), 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


async def read_json(request: Request, limit: int) -> Any:
    """The body as JSON values; 415 when it does not say that it is JSON, 400 or 422 when it is not or not soundly."""
    _check_type(request)
    return parse(await read(request, limit))


async def read_optional(request: Request, limit: int) -> Any:
    """The body as JSON values, or {} when there is none."""
    raw = await read(request, limit)
    if not raw:
        return {}
    _check_type(request)
    return parse(raw)


def _check_type(request: Request) -> None:
    sent = header(request.scope, b"content-type")
    kind, _, rest = (sent[0] if len(sent) == 1 else "").lower().partition(";")
    kind, rest = kind.strip(), rest.strip().replace('"', "")
    json_like = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if not json_like or (rest.startswith("charset=") and rest != "charset=utf-8"):
        raise Problem(415, "unsupported_media_type", "Send UTF-8 JSON, with Content-Type: application/json.")
    if any(coding.lower() != "identity" for coding in header(request.scope, b"content-encoding")):
        raise Problem(415, "unsupported_media_type", "Send the body without Content-Encoding.")


def parse(raw: bytes) -> Any:
    """JSON values out of bytes. No duplicate keys, NaN, infinities, lone surrogates, nesting over 200."""
    try:
        value = jiter.from_json(raw, catch_duplicate_keys=True, allow_inf_nan=False)
    except ValueError:
        raise _why(raw) from None
    if _infinite(value):
        raise _number()
    return value


def _infinite(value: Any) -> bool:
    """True when a number somewhere in it was too large for a float."""
    if isinstance(value, dict):
        return any(_infinite(inner) for inner in value.values() if not isinstance(inner, str))
    if isinstance(value, list):
        return any(_infinite(inner) for inner in value if not isinstance(inner, str))
    return isinstance(value, float) and not math.isfinite(value)


class _DuplicateKey(Exception):
    """A key stands twice in one object."""


def _why(raw: bytes) -> Problem:
    """Why our parser refused: 400 when it is not JSON by the grammar either, 422 when it is."""
    try:
        text = raw.decode()
        json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=float)
    except _DuplicateKey:
        return Problem(422, "duplicate_key", "An object of the body has the same key twice.")
    except RecursionError:
        return _deep()
    except ValueError:
        return Problem(400, "malformed_json", "The body is not JSON (RFC 8259).")
    if _LONE.search(text):
        return Problem(422, "lone_surrogate", "A string of the body holds half a surrogate pair.")
    return _number() if re.search(r"\d{4000}", text) else _deep()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise _DuplicateKey
    return out


def _no_constant(_: str) -> Any:
    raise ValueError


def _deep() -> Problem:
    return Problem(422, "too_deep", "The body is nested deeper than 200 levels.")


def _number() -> Problem:
    return Problem(422, "number_out_of_range", "A number of the body is beyond what a double can hold.")


def _too_large(limit: int) -> Problem:
    return Problem(413, "body_too_large", f"The body is longer than {limit} bytes.")
