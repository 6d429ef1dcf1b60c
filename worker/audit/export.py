"""Writes and proves exports: NDJSON, one record a line (`chain.export_line`), and a manifest for the proof. Pure.

The manifest holds the filters, the count and digest of all lines, where every chain begins and ends, the seals whose
records are all in the export, and the public keys; it is signed if the exporter has a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, Final

from worker.audit.chain import GENESIS, AuditRow, canonical, chain_of_row, export_line, hash_of
from worker.audit.diagnose import AuditFault, TamperKind, diagnose_chain
from worker.audit.keys import Signer, TrustedKeys
from worker.audit.keytext import as_text, from_text
from worker.audit.report import Report
from worker.audit.seals import Digest, Seal, parse
from worker.audit.verify import Verifier
from worker.jobs.timestamps import iso_utc

FORMAT: Final = "vigil-audit-1"
_HASH_START: Final = 9
_BATCH: Final = 1_000
_HEAD, _ID, _RECORD = b'{"hash":"', b'","id":"', b'","record":'


@dataclass(slots=True)
class ExportManifest:
    """The manifest's data of the lines so far."""

    digest: Digest = field(default_factory=Digest)
    starts: dict[str, str] = field(default_factory=dict)
    chains: dict[str, list[Any]] = field(default_factory=dict)  # [how many records, the last one's hash]

    def add(self, chain: str, row: AuditRow) -> bytes:
        """Add a record and return its line."""
        text = export_line(row)
        self.digest.add(text)
        ends = self.chains.setdefault(chain, [0, ""])
        ends[0], ends[1] = ends[0] + 1, row.hash
        return text

    def has(self, chain: str) -> bool:
        """Return whether a record of the chain was added."""
        return chain in self.chains


def manifest(
    collected: ExportManifest,
    seals: Sequence[Seal],
    *,
    filters: Mapping[str, str | None],
    public: Iterable[bytes],
    signer: Signer | None,
    at: datetime,
) -> bytes:
    """Return the manifest as JSON bytes."""
    body: dict[str, Any] = {
        "format": FORMAT,
        "created_at": iso_utc(at, "milliseconds"),
        "filters": {name: value for name, value in filters.items() if value is not None},
        "records": collected.digest.count,
        "digest": collected.digest.hexdigest(),
        "starts": collected.starts,
        "chains": collected.chains,
        "checkpoints": [dict(seal.body) for seal in seals],
        "public_keys": sorted(as_text(key) for key in public),
    }
    if signer is not None:
        body["key"] = signer.key_id
        body["signature"] = signer.sign(canonical(body))
    return canonical(body) + b"\n"


class BadExport(ValueError):
    """The file is no export or no manifest of one; the message says where."""


def read_manifest(raw: bytes) -> dict[str, Any]:
    """Parse a manifest; raise BadExport if it is none."""
    try:
        body: dict[str, Any] = json.loads(raw)
        if body["format"] != FORMAT:
            raise BadExport(f"the manifest is of another format than {FORMAT}")
        _ = body["records"], body["digest"], dict(body["starts"]), dict(body["chains"]), dict(body["filters"])
        for key in body["public_keys"]:
            from_text(key)
    except (ValueError, KeyError, TypeError) as error:
        raise error if isinstance(error, BadExport) else BadExport("this is not the manifest of an export") from None
    return body


def read_row(text: bytes) -> AuditRow | None:
    """Return the record of a line, or None if it is not in the form of an export."""
    at = text.find(_RECORD)
    hash_end = _HASH_START + 64
    if not (text.startswith(_HEAD) and text.endswith(b"}") and text[hash_end:].startswith(_ID) and at > 0):
        return None
    try:
        place, hashed = text[hash_end + len(_ID) : at].decode("ascii"), text[_HASH_START:hash_end].decode("ascii")
        return AuditRow(place, hashed, text[at + len(_RECORD) : -1])
    except UnicodeDecodeError:
        return None


class FileProof:
    """Proves an export line by line; `lines()` returns them from the beginning each time."""

    def __init__(self, lines: Any, stated: Mapping[str, Any] | None, trusted: TrustedKeys | None) -> None:
        """`stated`: the manifest; `trusted`: None = the keys that the manifest itself names."""
        self._lines, self._manifest = lines, stated or {}
        self._pinned = trusted
        self._trusted = trusted or TrustedKeys(from_text(key) for key in self._manifest.get("public_keys", ()))

    def prove(self) -> Report:
        """Verify the export; raise BadExport if it can't be read at all."""
        stated, report = self._manifest, Report()
        seals = [parse(canonical(body)) for body in stated.get("checkpoints", ())]
        retention = next((s for s in reversed(seals) if s.kind == "retention"), None)
        whole = not stated.get("filters") and (not seals or seals[0].number == 1 or retention is not None)
        if whole and seals and seals[0].number == 1:
            retention = None
        verifier = Verifier(self._trusted, retention if whole else None, stated.get("starts"), from_any=not whole)
        verifier.add(seal.line for seal in seals)
        collected = self._read(verifier)
        verifier.finish()
        report.faults += [*self._explain(verifier, retention if whole else None), *verifier.faults]
        report.records, report.seals, report.kept = verifier.records, verifier.seals, verifier.kept
        report.unsealed = verifier.unsealed
        report.jobs = sum(not chain.startswith("app:") for chain in collected.chains)
        if whole and retention is not None:
            report.removed, report.removed_before = retention.body["removed"], retention.body["upto"]
        if stated and not verifier.stopped:
            report.faults += self._compare(collected)
        report.notes += self._notes()
        return report

    def _read(self, verifier: Verifier) -> ExportManifest:
        collected, lines, number = ExportManifest(), iter(self._lines()), 0
        while batch := list(islice(lines, _BATCH)):
            rows: list[AuditRow] = []
            for text in batch:
                number += 1
                row = read_row(text)
                if row is None:
                    verifier.feed(rows)
                    detail = f"line {number} is not in the form of an export"
                    verifier.faults.append(AuditFault(TamperKind.ALTERED, detail))
                    verifier.stopped = True
                    return collected
                rows.append(row)
            try:
                verifier.feed(rows)
            except ValueError:
                raise BadExport(f"lines {number - len(rows) + 1} to {number}: an id is not valid") from None
            if verifier.stopped:
                return collected
            for row in rows:
                collected.add(chain_of_row(row), row)
        return collected

    def _explain(self, verifier: Verifier, retention: Seal | None) -> list[AuditFault]:
        starts = {**self._manifest.get("starts", {}), **(retention.body["heads"] if retention else {})}
        found: list[AuditFault] = []
        for chain in islice(verifier.suspects, 5):
            rows = [row for row in map(read_row, self._lines()) if row is not None and chain_of_row(row) == chain]
            fault = diagnose_chain(chain, rows, starts.get(chain, GENESIS))
            found += [fault] if fault is not None else []
        return found

    def _compare(self, collected: ExportManifest) -> list[AuditFault]:
        """Compare the manifest with the lines."""
        stated = self._manifest
        signature = stated.get("signature")
        if signature is not None:
            body = {name: value for name, value in stated.items() if name != "signature"}
            if self._trusted.verify(str(stated.get("key")), str(signature), canonical(body)) != "good":
                return [
                    AuditFault(
                        TamperKind.CHECKPOINT,
                        "the manifest's signature is not valid, or not by a trusted key",
                    )
                ]
        for chain, (count, head) in stated["chains"].items():
            have = collected.chains.get(chain)
            if have is None:
                return [
                    AuditFault(
                        TamperKind.REMOVED, f"{chain} has {count} records by the manifest, but none here", job_id=chain
                    )
                ]
            if have != [count, head]:
                kind = (
                    TamperKind.TRUNCATED
                    if have[0] < count
                    else TamperKind.INSERTED
                    if have[0] > count
                    else TamperKind.ALTERED
                )
                return [AuditFault(kind, f"{chain} ends elsewhere than the manifest says", job_id=chain)]
        extra = next((chain for chain in collected.chains if chain not in stated["chains"]), None)
        if extra is not None:
            return [AuditFault(TamperKind.INSERTED, f"{extra} is not in the manifest", job_id=extra)]
        if (collected.digest.count, collected.digest.hexdigest()) != (stated["records"], stated["digest"]):
            return [AuditFault(TamperKind.REORDERED, "the lines are not in the order that the manifest's digest is of")]
        return []

    def _notes(self) -> list[str]:
        stated = self._manifest
        if not stated:
            return ["there is no manifest: records that are missing at the end of a job can't be seen"]
        notes = []
        if "app" in stated["filters"]:
            notes.append("an export of one app proves its chains; that no job was left out only the whole trail proves")
        elif stated["filters"]:
            notes.append("an export of some time proves what lies within; checkpoints that reach beyond are left out")
        if "signature" not in stated:
            notes.append("the manifest is not signed")
        if self._pinned is None:
            notes.append("signatures were held against the keys that the manifest itself names; --key pins them")
        return notes


def follows_from_nothing(row: AuditRow) -> bool:
    """Return whether this is the first record of a chain."""
    return hash_of(GENESIS, row.record) == row.hash


def lines_of(raw: Iterable[bytes]) -> Iterator[bytes]:
    """Return the lines of a file without line ends and without blank lines."""
    return (text.rstrip(b"\n") for text in raw if text.strip())
