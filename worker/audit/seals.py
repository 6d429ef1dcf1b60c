"""Makes and parses seals: signed statements about the trail, each with the hash of the one before. Pure.

A *checkpoint* seals the records after the last one: their range, count and digest (SHA-256 over each line of an
export after its length in 8 bytes), and the first 4 bytes of each record's hash, so that a verifier can say which one
is wrong.
A *retention* seal says up to where records were removed because their time was over, so that this can be told from
tampering: the ends of the chains that go on, and what a legal hold kept.
The signature is over the canonical JSON of the seal without it; the hash of a seal is over its whole line.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from worker.audit.chain import GENESIS, AuditRow, canonical, export_line, hash_of
from worker.audit.keys import Signer, TrustedKeys
from worker.jobs.stored_fields import NewerSchema, require_known_schema
from worker.jobs.timestamps import iso_utc

MAX_RECORDS: Final = 1_000
"""The maximum number of records in one checkpoint."""
MARK_DIGITS: Final = 8  # hex digits of a record's hash
_COMMON_FIELDS: Final = frozenset({"kind", "number", "last", "total", "previous", "at", "key", "signature"})
_FIELDS_BY_KIND: Final = {
    "checkpoint": frozenset({"first", "count", "digest", "marks"}),
    "retention": frozenset({"upto", "through", "through_hash", "removed", "heads", "kept", "holds"}),
}


class BadSeal(ValueError):
    """The text is no seal, or its signature is not valid."""


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal and the line it was read from."""

    line: bytes
    body: Mapping[str, Any]

    @property
    def kind(self) -> Literal["checkpoint", "retention"]:
        """Return the kind of statement."""
        kind: Literal["checkpoint", "retention"] = self.body["kind"]
        return kind

    @property
    def number(self) -> int:
        """Return its number among all seals, from 1."""
        return int(self.body["number"])

    @property
    def last(self) -> str:
        """Return the id of the last record that is sealed once it exists."""
        return str(self.body["last"])

    @property
    def hash(self) -> str:
        """Return the hash that the next seal names."""
        return hashlib.sha256(self.line).hexdigest()

    @property
    def marks(self) -> list[str]:
        """Return the beginning of each sealed record's hash, in order."""
        text = base64.b64decode(self.body["marks"]).hex()
        return [text[n : n + MARK_DIGITS] for n in range(0, len(text), MARK_DIGITS)]


class Digest:
    """SHA-256 over lines, each after its length, so that no two lists of lines share one."""

    __slots__ = ("_sum", "count")

    def __init__(self) -> None:
        self._sum, self.count = hashlib.sha256(), 0

    def add(self, text: bytes) -> None:
        """Add a line."""
        self._sum.update(len(text).to_bytes(8, "big") + text)
        self.count += 1

    def hexdigest(self) -> str:
        """Return the digest so far."""
        return self._sum.hexdigest()


def parse(text: bytes) -> Seal:
    """Parse a line; raise BadSeal if it does not have the form of a seal, or only a newer release can read it.

    Fields that a newer release has added are under the signature with all others.
    """
    try:
        body = json.loads(text)
        kind = body["kind"]
        require_known_schema(body)
        if not set(body) >= _COMMON_FIELDS | _FIELDS_BY_KIND[kind] or not isinstance(body["number"], int):
            raise BadSeal("a seal has other fields")
        if canonical(body) != text:
            raise BadSeal("a seal is canonical JSON")
        seal = Seal(text, body)
        if kind == "checkpoint":
            _ = seal.marks
    except NewerSchema:
        raise BadSeal("a seal that needs a newer release") from None
    except (ValueError, KeyError, TypeError):
        raise BadSeal("not a seal") from None
    return seal


def verify_signature(seal: Seal, trusted: TrustedKeys) -> Literal["good", "bad", "unknown"]:
    """Return whether a trusted key signed the seal."""
    body = {name: value for name, value in seal.body.items() if name != "signature"}
    return trusted.verify(str(body["key"]), str(seal.body["signature"]), canonical(body))


def checkpoint(signer: Signer, before: Seal | None, rows: Sequence[AuditRow], at: datetime) -> Seal:
    """Return the seal of the records after the last one; there must be at least one."""
    digest = Digest()
    for row in rows:
        digest.add(export_line(row))
    marks = base64.b64encode(bytes.fromhex("".join(row.hash[:MARK_DIGITS] for row in rows))).decode()
    body = {
        "kind": "checkpoint",
        "first": rows[0].id,
        "last": rows[-1].id,
        "count": len(rows),
        "total": (int(before.body["total"]) if before else 0) + len(rows),
        "digest": digest.hexdigest(),
        "marks": marks,
    }
    return _signed(signer, before, body, at)


def retention(
    signer: Signer,
    before: Seal,
    through: tuple[int, str],
    *,
    upto: str,
    removed: int,
    heads: Mapping[str, str],
    kept: tuple[int, str],
    holds: Iterable[str],
    at: datetime,
) -> Seal:
    """Return the seal which states that all records sealed by `through` and before were removed but those `kept`.

    `through`: (number, hash) of a seal; `upto`: the last record that it and those before it seal.
    `heads`: chain -> hash of its last removed record, for chains that go on. `kept`: (how many records stayed, the end
    of the chain over their lines). `removed`: how many were removed in all. `holds`: the legal holds.
    """
    body = {
        "kind": "retention",
        "last": before.last,
        "total": before.body["total"],
        "upto": upto,
        "through": through[0],
        "through_hash": through[1],
        "removed": removed,
        "heads": dict(heads),
        "kept": {"count": kept[0], "head": kept[1]},
        "holds": sorted(holds),
    }
    return _signed(signer, before, body, at)


def _signed(signer: Signer, before: Seal | None, body: dict[str, Any], at: datetime) -> Seal:
    body |= {
        "number": before.number + 1 if before else 1,
        "previous": before.hash if before else GENESIS,
        "at": iso_utc(at, "milliseconds"),
        "key": signer.key_id,
    }
    body["signature"] = signer.sign(canonical(body))
    return Seal(canonical(body), body)


def extend_kept_chain(head: str, row: AuditRow) -> str:
    """Return the end of the chain over the lines of kept records after one more record."""
    return hash_of(head, export_line(row))
