"""What a chain of records is: hash = SHA-256(previous hash + canonical JSON), and how one stands in an export.

Pure. The bytes that were hashed are the bytes that are kept, so nobody has to spell JSON anew to check a hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final, NamedTuple

import jiter

GENESIS: Final = "0" * 64
"""What stands before the first record of a chain."""
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


class AuditRow(NamedTuple):
    """One record as it is kept: the id of its place in the stream, its hash, its bytes."""

    id: str
    hash: str
    record: bytes


def canonical(body: dict[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8 (contract section 8)."""
    return _CANONICAL(body).encode()


def hash_of(previous: str, body: bytes) -> str:
    """The hash of these bytes behind a record with the hash `previous`."""
    return hashlib.sha256(previous.encode() + body).hexdigest()


def link(previous: str, record: dict[str, Any]) -> tuple[str, bytes]:
    """(The record's hash, its canonical bytes)."""
    body = canonical(record)
    return hash_of(previous, body), body


def line(row: AuditRow) -> bytes:
    """The record as a line of an export, without its end; canonical JSON too: {"hash", "id", "record"}."""
    return b'{"hash":"%b","id":"%b","record":%b}' % (row.hash.encode(), row.id.encode(), row.record)


def chain_of(record: dict[str, Any]) -> str:
    """Which chain a record belongs to: its job's, or its app's for what is said of all jobs of an app."""
    job_id = record["job_id"]
    return str(job_id) if job_id is not None else app_chain(str(record["app"]))


def chain_in(row: AuditRow) -> str:
    """The chain of a row; "" when its bytes are no record."""
    try:
        return glance(row.record)[0]
    except ValueError:
        return ""


def glance(record: bytes) -> tuple[str, int | None, str]:
    """(chain, seq, type) of a record's bytes, a fifth of the price of reading it all; ValueError for what is none.

    Keys are sorted, so what a verifier needs is the end of a record, and nothing behind `job_id` holds an object.
    """
    at = record.rfind(b',"job_id":')
    if at < 0:
        raise ValueError("not a record")
    end = jiter.from_json(b"{" + record[at + 1 :])
    try:
        job_id, seq, kind = end["job_id"], end["seq"], end["type"]
        return job_id or app_chain(json.loads(record)["app"]), seq, kind
    except (KeyError, TypeError):
        raise ValueError("not a record") from None


def app_chain(app: str) -> str:
    """The chain of what is said of an app as a whole."""
    return f"app:{app}"


def stream_id(text: str) -> tuple[int, int]:
    """(millisecond, number) of an id of the stream; such pairs sort as the stream does."""
    ms, _, number = text.partition("-")
    return int(ms), int(number)
