"""Encode values as bytes for Redis and decode them: JSON with a schema number, never pickle.

The record is plain (it holds no content), and compressed once its job has been settled for a while. Everything an app
sent or received is sealed: encrypted by `envelope`, or stored as plain JSON by `seal` where no master keys are
configured.
"""

from __future__ import annotations

import json
from typing import Any, Final

from pydantic_core import to_json

from worker.jobs.record import Job
from worker.store import compression

# made once: `json.dumps` with options makes an encoder for each call, and there are thousands of chunks
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_PLAIN: Final = b"1"  # the schema number of content that is stored as plain JSON


def dump_job(job: Job) -> bytes:
    """Encode the record as JSON; its schema number is one of its fields."""
    return job.model_dump_json().encode()


def load_job(raw: bytes) -> Job:
    """Decode a record written by any release of the same schema number, compressed or not."""
    return Job.model_validate_json(compression.expand(raw))


def dump_event(wire: dict[str, Any]) -> bytes:
    """Encode an event in its wire shape, as the trail stores it and watchers get it."""
    return to_json(wire)


def load_event(raw: bytes) -> dict[str, Any]:
    """Decode an event in its wire shape."""
    body: dict[str, Any] = json.loads(raw)
    return body


def pack(value: Any) -> bytes:
    """Encode any value as JSON, also text with a lone surrogate. Fast: every submit and every chunk passes here."""
    try:
        return to_json(value)
    except ValueError:  # a lone surrogate
        return _COMPACT(value).encode("utf-8", "surrogatepass")


def unpack(raw: bytes) -> Any:
    """Decode JSON bytes."""
    return json.loads(raw)


def seal(value: Any) -> bytes:
    """Encode content as plain bytes."""
    return _PLAIN + pack(value)


def is_plain(raw: bytes) -> bool:
    """Return True when no key is needed to read it."""
    return raw[:1] == _PLAIN


def unseal(raw: bytes | None) -> Any:
    """Decode plain content; return None when it is gone (expired or deleted)."""
    if not raw:
        return None
    if raw[:1] != _PLAIN:
        msg = f"content of an unknown schema {raw[:1]!r}: written by a newer release?"
        raise ValueError(msg)
    return json.loads(raw[1:])
