"""Reads the bodies of creates, which may be long because of images and files. Must not know what the JSON means.

A body over 1 MiB is read once the process has room for it (api/runtime/body_budget.py). Its images and files are taken
out of the text before it is parsed (media_strings.py).
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from starlette.requests import Request
from starlette.types import Scope

from api.runtime.body_budget import BudgetSpent, Reservation
from api.runtime.context import context_of
from api.web.body import check_json_type, note_size, read_chunks
from api.web.header_fields import header_values
from api.web.media_strings import TextTooLong, cut_media, only_in_media_fields
from api.web.params import APP_KEY
from api.web.problems import Problem
from api.web.strict_json import parse_json
from worker.store.media import MediaStrings

_LARGE: Final = 2**20
_RESERVATION: Final = "vigil.body_reservation"


async def read_json_with_media(request: Request) -> tuple[Any, MediaStrings | None]:
    """Return (the body as JSON values, its images and files), for which placeholders stand in the values.

    Call `release_body` once the job is stored. Raises a Problem as `read_json`, and one (503) if other large bodies
    took all the room for too long.
    """
    check_json_type(request)
    context = context_of(request)
    text, most = context.settings.body_limit, context.settings.media_body_limit
    declared = [int(value) for value in header_values(request.scope, b"content-length") if value.isdigit()]
    if declared and _LARGE < declared[0] <= most:
        await _reserve(request, declared[0])
    chunks, size = list[bytes](), 0
    async for chunk in read_chunks(request, most):
        size += len(chunk)
        chunks.append(chunk)
        if size > _LARGE and _RESERVATION not in request.scope:
            await _reserve(request, most)
    note_size(request, size)
    app = request.scope.get(APP_KEY, "")
    return await context.large_work.run(app, size, _parse, chunks, text, most)


def release_body(scope: Scope) -> None:
    """Let another large body be read: this request holds its own no longer."""
    reservation: Reservation | None = scope.get(_RESERVATION)
    if reservation is not None:
        reservation.release()


async def _reserve(request: Request, size: int) -> None:
    app = request.scope.get(APP_KEY, "")
    try:
        request.scope[_RESERVATION] = await context_of(request).body_budget.take(app, size)
    except BudgetSpent as spent:
        detail = "This API process holds as many large bodies as it may (VIGIL_BODY_MEMORY_BYTES); try again."
        raise Problem(503, "too_busy", detail, headers={"Retry-After": str(spent.retry_after)}) from None


def _parse(chunks: list[bytes], text: int, most: int) -> tuple[Any, MediaStrings | None]:
    raw = b"".join(chunks)
    chunks.clear()
    if len(raw) <= _LARGE and len(raw) <= text:
        return parse_json(raw, text), None
    try:
        cut = cut_media(raw, text, secrets.token_hex(16))
    except TextTooLong:
        raise _too_long(text, most) from None
    value = parse_json(cut.text, text)
    if only_in_media_fields(value, cut.media):
        return value, cut.media if cut.media.strings else None
    if len(raw) > text:
        raise _too_long(text, most)
    return parse_json(raw, text), None


def _too_long(text: int, most: int) -> Problem:
    detail = f"Beside base64 images and files the body is longer than {text} bytes"
    limits = f"{detail} (VIGIL_MAX_BODY_BYTES; with them it may have {most} bytes)."
    return Problem(413, "body_too_large", limits)
