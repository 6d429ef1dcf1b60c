"""Reads request bodies: limited in size, JSON only, and strict. Must not know what the JSON means.

A large body is parsed beside the event loop. Every step is linear in the body's length, whatever it holds.
"""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.requests import ClientDisconnect, Request

from api.runtime.context import context_of
from api.runtime.request_limits import slot_of
from api.web.params import APP_KEY, header_values
from api.web.problems import Problem
from api.web.receipt import body_has_begun
from api.web.strict_json import parse_json

_SIZE_KEY = "vigil.body_size"
_HASH_KEY = "vigil.body_hash"


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body; raise a Problem (413) as soon as it is known to be longer than `limit` bytes."""
    if any(
        declared.isdigit() and int(declared) > limit for declared in header_values(request.scope, b"content-length")
    ):
        raise _too_large(limit)
    chunks, size, more, slot = list[bytes](), 0, True, slot_of(request.scope)
    hashed = request.scope.get(_HASH_KEY)
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
        if hashed is not None:
            hashed.update(chunk)
    await slot.resume()
    return b"".join(chunks)


async def read_json(request: Request, limit: int) -> Any:
    """Return the body as JSON values.

    Raises a Problem: 415 if it is not declared as JSON, 400 if it is not JSON, 422 if it is JSON that `parse_json`
    refuses.
    """
    _check_type(request)
    return await parse_body(request, await read_body(request, limit), limit)


async def read_optional_json(request: Request, limit: int) -> Any:
    """Return the body as JSON values, or {} if there is none. Raises as `read_json`."""
    raw = await read_body(request, limit)
    if not raw:
        return {}
    _check_type(request)
    return await parse_body(request, raw, limit)


async def parse_body(request: Request, raw: bytes, limit: int) -> Any:
    """Return a body that was read as JSON values; raise a Problem if `parse_json` refuses it."""
    request.scope[_SIZE_KEY] = len(raw)
    app = request.scope.get(APP_KEY, "")
    return await context_of(request).large_work.run(app, len(raw), parse_json, raw, limit)


def body_size(request: Request) -> int:
    """Return the bytes of the JSON that the request has brought."""
    size: int = request.scope.get(_SIZE_KEY, 0)
    return size


def hash_body(request: Request) -> None:
    """Let the body be hashed while it is read; call it before."""
    request.scope[_HASH_KEY] = hashlib.sha256()


def body_hash(request: Request) -> bytes:
    """Return the SHA-256 of the body that was read."""
    digest: bytes = request.scope[_HASH_KEY].digest()
    return digest


def _check_type(request: Request) -> None:
    sent = header_values(request.scope, b"content-type")
    kind, _, rest = (sent[0] if len(sent) == 1 else "").lower().partition(";")
    kind, rest = kind.strip(), rest.strip().replace('"', "")
    json_like = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if not json_like or (rest.startswith("charset=") and rest != "charset=utf-8"):
        raise Problem(415, "unsupported_media_type", "Send UTF-8 JSON, with Content-Type: application/json.")
    if any(coding.lower() != "identity" for coding in header_values(request.scope, b"content-encoding")):
        raise Problem(415, "unsupported_media_type", "Send the body without Content-Encoding.")


def _too_large(limit: int) -> Problem:
    return Problem(413, "body_too_large", f"The body is longer than {limit} bytes.")
