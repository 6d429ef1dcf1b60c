"""Reads request bodies: limited in size, JSON only, and strict. Must not know what the JSON means.

A large body is parsed beside the event loop. Every step is linear in the body's length, whatever it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from api.runtime.context import context_of
from api.runtime.request_limits import slot_of
from api.web.header_fields import header_values
from api.web.params import APP_KEY
from api.web.problems import Problem
from api.web.receipt import body_has_begun
from api.web.strict_json import parse_json

_SIZE_KEY = "vigil.body_size"
_HASH_KEY = "vigil.body_hash"


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body; raise a Problem (413) as soon as it is known to be longer than `limit` bytes."""
    return b"".join([chunk async for chunk in read_chunks(request, limit)])


async def read_chunks(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """Yield the body as it comes; raise a Problem (413) as soon as it is known to be longer than `limit` bytes."""
    if any(
        declared.isdigit() and int(declared) > limit for declared in header_values(request.scope, b"content-length")
    ):
        raise _too_large(limit)
    size, more, slot = 0, True, slot_of(request.scope)
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
        if hashed is not None:
            hashed.update(chunk)
        yield chunk
    await slot.resume()


async def read_json(request: Request, limit: int) -> Any:
    """Return the body as JSON values.

    Raises a Problem: 415 if it is not declared as JSON, 400 if it is not JSON, 422 if it is JSON that `parse_json`
    refuses.
    """
    check_json_type(request)
    return await parse_body(request, await read_body(request, limit), limit)


async def read_optional_json(request: Request, limit: int) -> Any:
    """Return the body as JSON values, or {} if there is none. Raises as `read_json`."""
    raw = await read_body(request, limit)
    if not raw:
        return {}
    check_json_type(request)
    return await parse_body(request, raw, limit)


async def parse_body(request: Request, raw: bytes, limit: int) -> Any:
    """Return a body that was read as JSON values; raise a Problem if `parse_json` refuses it."""
    note_size(request, len(raw))
    app = request.scope.get(APP_KEY, "")
    return await context_of(request).large_work.run(app, len(raw), parse_json, raw, limit)


def note_size(request: Request, size: int) -> None:
    """Record how many bytes the request has brought."""
    request.scope[_SIZE_KEY] = size


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


def check_json_type(request: Request) -> None:
    """Raise a Problem (415) if the body is not declared as JSON."""
    sent = header_values(request.scope, b"content-type")
    if sent != ["application/json"] and not _is_json_type(sent):
        raise Problem(415, "unsupported_media_type", "Send UTF-8 JSON, with Content-Type: application/json.")
    codings = header_values(request.scope, b"content-encoding")
    if codings and any(coding.lower() != "identity" for coding in codings):
        raise Problem(415, "unsupported_media_type", "Send the body without Content-Encoding.")


def _is_json_type(sent: list[str]) -> bool:
    kind, _, rest = (sent[0] if len(sent) == 1 else "").lower().partition(";")
    kind, rest = kind.strip(), rest.strip().replace('"', "")
    json_like = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    return json_like and (not rest.startswith("charset=") or rest == "charset=utf-8")


def _too_large(limit: int) -> Problem:
    return Problem(413, "body_too_large", f"The body is longer than {limit} bytes (VIGIL_MAX_BODY_BYTES).")
