"""Encode values as bytes for Redis and decode them: JSON with a schema number, never pickle.

The record is plain (it holds no content). Everything an app sent or received is sealed: encrypted by `envelope`, or
stored as plain JSON by `seal` where no master keys are configured.
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic_core import to_json

from worker.jobs.record import Job

# made once: `json.dumps` with options makes an encoder for each call, and pieces of text come by the thousand
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_PLAIN: Final = b"1"  # the schema number of content that is kept as plain JSON


def dump_job(job: Job) -> bytes:
    """The record as JSON bytes; its schema number is a field of it."""
    return job.model_dump_json().encode()


def load_job(raw: bytes) -> Job:
    """The record behind bytes written by any release that shares its schema number."""
    return Job.model_validate_json(raw)


def dump_event(wire: dict[str, Any]) -> bytes:
    """An event's wire shape as the trail keeps it: what watchers get."""
    return to_json(wire)


def load_event(raw: bytes) -> dict[str, Any]:
    """An event's wire shape."""
    body: dict[str, Any] = json.loads(raw)
    return body


def pack(value: Any) -> bytes:
    """JSON bytes; half a surrogate pair passes. Fast, because every submit and every piece of text comes by here."""
    try:
        return to_json(value)
    except ValueError:  # half a pair
        return _COMPACT(value).encode("utf-8", "surrogatepass")


def unpack(raw: bytes) -> Any:
    """The value behind JSON bytes."""
    return json.loads(raw)


def seal(value: Any) -> bytes:
    """Content as bytes, plain."""
    return _PLAIN + pack(value)


def is_plain(raw: bytes) -> bool:
    """True when no key is needed to read it."""
    return raw[:1] == _PLAIN


def unseal(raw: bytes | None) -> Any:
    """The content again; None when it is gone (expired or deleted)."""
    if not raw:
        return None
    if raw[:1] != _PLAIN:
        msg = f"content of an unknown schema {raw[:1]!r}: written by a newer release?"
        raise ValueError(msg)
    return json.loads(raw[1:])
