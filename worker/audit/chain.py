"""Hashes the chain of audit records: hash = SHA-256(previous hash + canonical JSON); writes the lines of an export.

Pure. The hashed bytes are the stored bytes, so a check of a hash never has to serialise JSON again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import jiter

GENESIS: Final = "0" * 64
"""The previous hash of the first record of a chain."""
_PIECE: Final = 32
"""Values of a piece: a number may have 4,300 digits, and take 0.2 ms."""
_SMALL: Final = 4
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


class AuditRow(NamedTuple):
    """One stored record: its id in the stream, its hash, its bytes."""

    id: str
    hash: str
    record: bytes


def canonical(body: dict[str, Any]) -> bytes:
    """Return canonical JSON: sorted keys, no spaces, UTF-8 (contract section 8)."""
    return _CANONICAL(body).encode()


def canonical_pieces(value: Any) -> Iterator[bytes]:
    """Yield the bytes of canonical JSON in pieces, each by a short call into C, during which no other thread runs."""
    if isinstance(value, dict):
        yield b"{"
        yield from _member_pieces(sorted(value.items()))
        yield b"}"
    elif isinstance(value, list):
        yield b"["
        yield from _item_pieces(value)
        yield b"]"
    else:
        yield _CANONICAL(value).encode()


def _member_pieces(rows: list[tuple[str, Any]]) -> Iterator[bytes]:
    run: dict[str, Any] = {}
    comma = b""
    for name, inner in rows:
        if _is_small(inner):
            run[name] = inner
            if len(run) < _PIECE:
                continue
        if run:
            yield comma + _CANONICAL(run)[1:-1].encode()
            run, comma = {}, b","
        if not _is_small(inner):
            yield b"%b%b:" % (comma, _CANONICAL(name).encode())
            yield from canonical_pieces(inner)
            comma = b","
    if run:
        yield comma + _CANONICAL(run)[1:-1].encode()


def _item_pieces(items: list[Any]) -> Iterator[bytes]:
    run: list[Any] = []
    comma = b""
    for inner in items:
        if _is_small(inner):
            run.append(inner)
            if len(run) < _PIECE:
                continue
        if run:
            yield comma + _CANONICAL(run)[1:-1].encode()
            run, comma = [], b","
        if not _is_small(inner):
            yield comma
            yield from canonical_pieces(inner)
            comma = b","
    if run:
        yield comma + _CANONICAL(run)[1:-1].encode()


def _is_small(value: Any) -> bool:
    """Return whether a value is part of a piece: neither list nor object, or a short one of such values."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return True
    inner = value.values() if kind is dict else value
    return len(value) <= _SMALL and all(type(one) is not dict and type(one) is not list for one in inner)


def hash_of(previous: str, body: bytes) -> str:
    """Return the hash of these bytes after a record with the hash `previous`."""
    return hashlib.sha256(previous.encode() + body).hexdigest()


def link(previous: str, record: dict[str, Any]) -> tuple[str, bytes]:
    """Return (the record's hash, its canonical bytes)."""
    body = canonical(record)
    return hash_of(previous, body), body


def export_line(row: AuditRow) -> bytes:
    """Return the record as a line of an export without line end; canonical JSON too: {"hash", "id", "record"}."""
    return b'{"hash":"%b","id":"%b","record":%b}' % (row.hash.encode(), row.id.encode(), row.record)


def chain_of_row(row: AuditRow) -> str:
    """Return the chain of a row, or "" if its bytes are no record."""
    try:
        return read_header(row.record)[0]
    except ValueError:
        return ""


def read_header(record: bytes) -> tuple[str, int | None, str]:
    """Return (chain, seq, type) of a record's bytes; raise ValueError if they are none.

    A record belongs to its job's chain, or to its app's if it concerns all jobs of an app. Parsing only the end costs a
    fifth of parsing the record: keys are sorted, and nothing after `job_id` is an object.
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
    """Return the chain of the records that concern an app."""
    return f"app:{app}"


def stream_id(text: str) -> tuple[int, int]:
    """Return (millisecond, number) of an id of the stream; such pairs sort as the stream does."""
    ms, _, number = text.partition("-")
    return int(ms), int(number)
