"""Encode an audit record as fields of the stream's entry, and decode it. No other code knows these fields.

Two forms: `hash` and `record`, which every release reads, and the compact one, the field `z` alone: the 32 bytes of
the hash, then the compressed record. The chain and the seals are over the record's own bytes and its hash in hex, so
they do not depend on the form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from worker.audit.chain import AuditRow
from worker.store import compression
from worker.store.commands import CommandArg

NO_HASH: Final = "f" * 64
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_COMPACT: Final = b"z"
_HASH_BYTES: Final = 32


def stored_fields(head: str, record: bytes, *, compact: bool) -> tuple[CommandArg, ...]:
    """Return names and values of the entry's fields: one pair, or two; `head` is the record's hash."""
    if compact:
        return (_COMPACT, bytes.fromhex(head) + compression.compress(record))
    return ("hash", head, "record", record)


def row_of(place: bytes, fields: Mapping[bytes, bytes]) -> AuditRow:
    """Decode a record; an invalid one gets a hash that no record has, so that a verification reports it."""
    packed = fields.get(_COMPACT)
    if packed is not None and len(fields) == 1:
        try:
            record = compression.expand(packed[_HASH_BYTES:])
        except ValueError:
            return AuditRow(place.decode(), NO_HASH, packed[_HASH_BYTES:])
        return AuditRow(place.decode(), packed[:_HASH_BYTES].hex(), record)
    head = fields.get(b"hash", b"").decode(errors="replace")
    return AuditRow(place.decode(), head if _HASH.fullmatch(head) else NO_HASH, fields.get(b"record", b""))


def head_of(raw: bytes | None) -> str | None:
    """Decode the end of a chain as it is stored beside a job; None when it is missing or invalid."""
    head = (raw or b"").decode(errors="replace")
    return head if _HASH.fullmatch(head) else None
