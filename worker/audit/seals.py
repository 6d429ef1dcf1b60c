"""Seals: signed statements about the trail, each naming the hash of the one before. Pure.

A *checkpoint* seals the records behind the last one: their range, count and digest (SHA-256 over each line of an
export behind its length in 8 bytes), and the first 4 bytes of each record's hash, so that a verifier can say which one
is wrong.
A *retention* seal says up to where records were removed because their time was over, so that this can be told from
tampering: how the chains stood that go on, and what a legal hold kept.
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

from worker.audit.chain import GENESIS, AuditRow, canonical, hash_of, line
from worker.audit.keys import Signer, Trusted

MOST: Final = 1_000
"""The most records of one checkpoint."""
MARK: Final = 8  # hex digits of a record's hash
_BOTH: Final = frozenset({"kind", "number", "last", "total", "previous", "at", "key", "signature"})
_MORE: Final = {
    "checkpoint": frozenset({"first", "count", "digest", "marks"}),
    "retention": frozenset({"upto", "through", "through_hash", "removed", "heads", "kept", "holds"}),
}


class BadSeal(ValueError):
    """Not a seal, or one whose signature doesn't hold."""


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal and the line it was read from."""

    line: bytes
    body: Mapping[str, Any]

    @property
    def kind(self) -> Literal["checkpoint", "retention"]:
        """What it states."""
        kind: Literal["checkpoint", "retention"] = self.body["kind"]
        return kind

    @property
    def number(self) -> int:
        """Its place among all seals, from 1."""
        return int(self.body["number"])

    @property
    def last(self) -> str:
        """The id of the last record that is sealed after it."""
        return str(self.body["last"])

    @property
    def hash(self) -> str:
        """What the next seal names."""
        return hashlib.sha256(self.line).hexdigest()

    @property
    def marks(self) -> list[str]:
        """The beginning of each sealed record's hash, in order."""
        text = base64.b64decode(self.body["marks"]).hex()
        return [text[n : n + MARK] for n in range(0, len(text), MARK)]


class Digest:
    """SHA-256 over lines, each behind its length: no two lists of lines have the same."""

    __slots__ = ("_sum", "count")

    def __init__(self) -> None:
        self._sum, self.count = hashlib.sha256(), 0

    def add(self, text: bytes) -> None:
        """One more line."""
        self._sum.update(len(text).to_bytes(8, "big") + text)
        self.count += 1

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._sum.hexdigest()


def parse(text: bytes) -> Seal:
    """The seal of a line; BadSeal when it isn't shaped like one."""
    try:
        body = json.loads(text)
        kind = body["kind"]
        if set(body) != _BOTH | _MORE[kind] or not isinstance(body["number"], int):
            raise BadSeal("a seal has other fields")
        if canonical(body) != text:
            raise BadSeal("a seal is canonical JSON")
        seal = Seal(text, body)
        if kind == "checkpoint":
            _ = seal.marks
    except (ValueError, KeyError, TypeError):
        raise BadSeal("not a seal") from None
    return seal


def judge(seal: Seal, trusted: Trusted) -> Literal["good", "bad", "unknown"]:
    """Whether a key that is trusted signed the seal."""
    body = {name: value for name, value in seal.body.items() if name != "signature"}
    return trusted.judge(str(body["key"]), str(seal.body["signature"]), canonical(body))


def checkpoint(signer: Signer, before: Seal | None, rows: Sequence[AuditRow], at: datetime) -> Seal:
    """The seal of the records behind the last one; there is at least one."""
    digest = Digest()
    for row in rows:
        digest.add(line(row))
    marks = base64.b64encode(bytes.fromhex("".join(row.hash[:MARK] for row in rows))).decode()
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
    """The seal that says: what is sealed by `through` and before is over, all but what is `kept` was removed.

    `through`: (number, hash) of a seal; `upto`: the last record that it and those before it seal.
    `heads`: chain -> hash of its last removed record, of chains that go on. `kept`: (how many records stayed, the end
    of the chain over their lines). `removed`: how many are gone since ever. `holds`: what was held.
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
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "key": signer.key_id,
    }
    body["signature"] = signer.sign(canonical(body))
    return Seal(canonical(body), body)


def keep(head: str, row: AuditRow) -> str:
    """The end of the chain over the lines of kept records, one record later."""
    return hash_of(head, line(row))
