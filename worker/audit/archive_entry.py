"""Makes and parses the entries of the archive's manifest: one small signed object each, never changed. Pure.

An entry names the one before it by its hash, so none can be removed from the middle; `segment` entries name an object
with its digest, `retention` entries say which segments are over. Entry N is the object `audit/manifest/N.json`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from worker.audit.chain import GENESIS, canonical, stream_id
from worker.audit.chain_filter import filter_of
from worker.audit.keys import Signer, TrustedKeys
from worker.audit.segments import Segment, object_digest
from worker.jobs.timestamps import iso_utc

MANIFEST: Final = "audit/manifest"
SEGMENTS: Final = "audit/segments"
FORMAT: Final = "vigil-audit-archive-1"
MAX_ENTRY_BYTES: Final = 2**20
_NUMBER: Final = re.compile(rf"{MANIFEST}/([0-9]{{10}})\.json")
_COMMON: Final = frozenset(
    {"format", "kind", "number", "previous", "last", "seal", "seal_hash", "records", "at", "key", "signature"}
)
_FIELDS: Final = {
    "segment": frozenset({"object", "size", "digest", "first", "count", "seals", "chains"}),
    "retention": frozenset({"through", "kept", "removed", "holds", "upto"}),
}


class BadEntry(ValueError):
    """The text is no entry of a manifest."""


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One entry: its line, and the same as JSON.

    `last`, `seal`, `seal_hash`: how far the archive goes with it: a record, a seal. `records`: archived since ever.
    """

    line: bytes
    body: Mapping[str, Any]

    @property
    def number(self) -> int:
        return int(self.body["number"])

    @property
    def kind(self) -> Literal["segment", "retention"]:
        kind: Literal["segment", "retention"] = self.body["kind"]
        return kind

    @property
    def last(self) -> str:
        return str(self.body["last"])

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.line).hexdigest()

    @property
    def name(self) -> str:
        """Return the name of the object that holds its segment."""
        return str(self.body["object"])

    def __str__(self) -> str:
        between = f"{self.body['count']:,} records, {self.body['first']} to {self.last}"
        return f"segment {self.number} ({self.name}: {between})"


def entry_name(number: int) -> str:
    """Return the name of the object of an entry."""
    return f"{MANIFEST}/{number:010d}.json"


def number_of(name: str) -> int | None:
    """Return the number of the entry that an object of this name holds, or None if it is not the name of one."""
    found = _NUMBER.fullmatch(name)
    return int(found[1]) if found else None


def segment_entry(
    signer: Signer, before: ArchiveEntry | None, segment: Segment, content: bytes, at: datetime
) -> ArchiveEntry:
    """Return the entry of a segment, behind the entry before it."""
    number, digest = (before.number + 1 if before else 1), object_digest(content)
    body = {
        "kind": "segment",
        "object": f"{SEGMENTS}/{number:010d}-{digest[:16]}.ndjson.zst",
        "size": len(content),
        "digest": digest,
        "first": segment.rows[0].id,
        "last": segment.rows[-1].id,
        "count": len(segment.rows),
        "records": (before.body["records"] if before else 0) + len(segment.rows),
        "seals": [segment.seals[0].number, segment.seals[0].body["previous"]],
        "seal": segment.seals[-1].number,
        "seal_hash": segment.seals[-1].hash,
        "chains": filter_of(segment.by_chain),
    }
    return _signed(signer, before, body, at)


def retention_entry(
    signer: Signer,
    before: ArchiveEntry,
    *,
    through: ArchiveEntry,
    kept: Sequence[int],
    removed: int,
    holds: Iterable[str],
    at: datetime,
) -> ArchiveEntry:
    """Return the entry which states that all segments up to that of `through` are over but those `kept`.

    `removed`: how many records were removed in all. `holds`: the names of what kept them.
    """
    body = {
        "kind": "retention",
        "through": through.number,
        "upto": through.last,
        "kept": list(kept),
        "removed": removed,
        "holds": sorted(holds),
        **{name: before.body[name] for name in ("last", "records", "seal", "seal_hash")},
    }
    return _signed(signer, before, body, at)


def _signed(signer: Signer, before: ArchiveEntry | None, body: dict[str, Any], at: datetime) -> ArchiveEntry:
    body |= {
        "format": FORMAT,
        "number": before.number + 1 if before else 1,
        "previous": before.hash if before else GENESIS,
        "at": iso_utc(at, "milliseconds"),
        "key": signer.key_id,
    }
    body["signature"] = signer.sign(canonical(body))
    return ArchiveEntry(canonical(body), body)


def parse_entry(line: bytes) -> ArchiveEntry:
    """Return the entry of a line. Raises BadEntry if it is none."""
    try:
        body = json.loads(line)
        wanted = _COMMON | _FIELDS[body["kind"]]
        if not wanted <= body.keys() or body["format"] != FORMAT or canonical(body) != line:
            raise BadEntry("is not an entry of a manifest")
        stream_id(body["last"])
        _ = int(body["number"]), int(body["seal"]), int(body["records"])
        if body["kind"] == "segment":
            stream_id(body["first"])
            _ = int(body["count"]), int(body["seals"][0]), str(body["seals"][1])
        else:
            stream_id(body["upto"])
            _ = int(body["through"]), [int(one) for one in body["kept"]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, BadEntry) else BadEntry("is not an entry of a manifest") from None
    return ArchiveEntry(line, body)


def entry_fault(entry: ArchiveEntry, before: ArchiveEntry | None, number: int, trusted: TrustedKeys) -> str | None:
    """Return why this is not entry `number` behind the one before it, or None."""
    name = f"manifest entry {number}"
    body = {key: value for key, value in entry.body.items() if key != "signature"}
    verdict = trusted.verify(str(body["key"]), str(entry.body["signature"]), canonical(body))
    if verdict == "unknown":
        return f"{name} is signed by {body['key']}, which is not a trusted key"
    if verdict == "bad":
        return f"the signature of {name} does not fit it"
    if entry.number != number:
        return f"{name} is missing: entry {entry.number} is in its place"
    if entry.body["previous"] != (before.hash if before else GENESIS):
        return f"{name} does not follow from the one before it"
    if entry.kind == "segment" and before is not None:
        if entry.body["seals"] != [before.body["seal"] + 1, before.body["seal_hash"]]:
            return f"{name} does not begin where the one before it ends"
        if stream_id(str(entry.body["first"])) <= stream_id(before.last):
            return f"{name} archives records a second time"
    return None
