"""Diagnoses a damaged trail: which record is the first bad one and what was done to it. Pure.

`verify` detects quickly that something is wrong; this looks closely at one chain or one range.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from worker.audit.chain import GENESIS, AuditRow, hash_of
from worker.audit.seals import MARK_DIGITS, Seal


class TamperKind(StrEnum):
    """The kind of tampering."""

    ALTERED = "altered"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    CHECKPOINT = "checkpoint"
    CHAIN_HEAD = "chain_head"
    UNREADABLE = "unreadable"
    RECORD = "record"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class AuditFault:
    """One fault; `record` is an id of the stream, `seq` the event's number within its job."""

    kind: TamperKind
    detail: str
    record: str | None = None
    job_id: str | None = None
    seq: int | None = None
    checkpoint: int | None = None

    def dump(self) -> dict[str, Any]:
        """Return the fault as JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def diagnose_chain(chain: str, rows: Sequence[AuditRow], start: str) -> AuditFault | None:
    """Return the first break of a chain, or None; `start` is the hash before the first record."""
    earlier, head, seq = "", start, 0
    for n, row in enumerate(rows):
        if hash_of(head, row.record) == row.hash:
            earlier, head, seq = head, row.hash, _seq(row) or seq
            continue
        if n == 0 and start != GENESIS:
            detail = f"{_name(row, chain)} does not follow from what retention removed: one before it is missing"
            return _fault(TamperKind.REMOVED, chain, row, detail)
        return _misfit(chain, rows, n, (earlier, head), seq)
    return None


def _misfit(chain: str, rows: Sequence[AuditRow], n: int, heads: tuple[str, str], seq: int) -> AuditFault:
    row, (earlier, head) = rows[n], heads
    here = _seq(row)
    others = [one for one in rows if one is not row]
    moved = any(hash_of(one.hash, row.record) == row.hash for one in others[n:])
    fits_here = any(hash_of(head, one.record) == one.hash for one in rows[n + 1 :])
    if moved or (fits_here and any(hash_of(one.hash, row.record) == row.hash for one in others)):
        return _fault(TamperKind.REORDERED, chain, row, f"{_name(row, chain)} is in the wrong place of its job's trail")
    if fits_here:
        return _fault(TamperKind.INSERTED, chain, row, f"{_name(row, chain)} was never part of its job's trail")
    if n and hash_of(earlier, row.record) == row.hash:
        last = rows[n - 1]
        return _fault(TamperKind.INSERTED, chain, last, f"{_name(last, chain)} was never part of its job's trail")
    if here is not None and here > seq + 1:
        which = f"record {seq + 1}" if here == seq + 2 else f"records {seq + 1} to {here - 1}"
        detail = f"{which} of {chain} {'is' if here == seq + 2 else 'are'} missing before {_name(row, chain)}"
        return AuditFault(TamperKind.REMOVED, detail, row.id, chain, seq + 1)
    return _fault(TamperKind.ALTERED, chain, row, f"{_name(row, chain)} is not what was written")


def diagnose_range(seal: Seal, rows: Sequence[tuple[str, str]], *, more_follow: bool) -> AuditFault:
    """Return how the (id, hash) pairs of a checkpoint's records differ from what it sealed."""
    sealed, number = seal.marks, seal.number
    found = [hashed[:MARK_DIGITS] for _, hashed in rows]
    n = next((i for i, (a, b) in enumerate(zip_longest(sealed, found)) if a != b), None)
    missing = len(sealed) - len(found)
    where = rows[n][0] if n is not None and n < len(rows) else None
    if missing > 0 and n is not None:
        place = where or (rows[-1][0] if rows else str(seal.body["first"]))
        after = f"after {rows[n - 1][0]}" if n else f"from {seal.body['first']} on"
        if n == len(rows) and not more_follow:
            detail = f"the trail ends {after}: {missing} sealed records after it are gone"
            return AuditFault(TamperKind.TRUNCATED, detail, place, checkpoint=number)
        detail = f"{missing} of {len(sealed)} records sealed by checkpoint {number} are gone, the first {after}"
        return AuditFault(TamperKind.REMOVED, detail, place, checkpoint=number)
    if missing < 0 and n is not None:
        detail = f"{where} is none of the {len(sealed)} records that checkpoint {number} sealed"
        return AuditFault(TamperKind.INSERTED, detail, where, checkpoint=number)
    if n is not None and sorted(sealed) == sorted(found):
        detail = f"{where} is in the place of another record that checkpoint {number} sealed"
        return AuditFault(TamperKind.REORDERED, detail, where, checkpoint=number)
    if n is not None:
        return AuditFault(
            TamperKind.ALTERED, f"{where} is not what checkpoint {number} sealed", where, checkpoint=number
        )
    between = f"from {seal.body['first']} to {seal.last}"
    detail = f"the records of checkpoint {number}, {between}, are not byte for byte what was sealed"
    return AuditFault(TamperKind.ALTERED, detail, checkpoint=number)


def diagnose_end(chain: str, rows: Sequence[AuditRow], version: int, head: str) -> AuditFault | None:
    """Return how a job's trail and the end that the job's own record names disagree, or None."""
    if rows and rows[-1].hash == head:
        return None
    if not rows:
        return AuditFault(
            TamperKind.REMOVED, f"{chain} is in Redis, but has no record in the trail", job_id=chain, seq=1
        )
    seq = max((_seq(row) or 0 for row in rows), default=0)
    known = next((n for n, row in enumerate(rows) if row.hash == head), None)
    if known is not None:
        row = rows[known + 1]
        return _fault(
            TamperKind.INSERTED, chain, row, f"{_name(row, chain)} is none of the job's: its record ends before"
        )
    if version > seq:
        detail = f"the trail of {chain} ends with record {seq}, but the job has {version}"
        return AuditFault(TamperKind.TRUNCATED, detail, rows[-1].id, chain, seq + 1)
    detail = f"the end of the chain that {chain} names is not the end of its trail"
    return AuditFault(TamperKind.CHAIN_HEAD, detail, rows[-1].id, chain, seq)


def _fault(kind: TamperKind, chain: str, row: AuditRow, detail: str) -> AuditFault:
    return AuditFault(kind, detail, row.id, chain, _seq(row))


def _name(row: AuditRow, chain: str) -> str:
    seq = _seq(row)
    return f"record {seq} of {chain} ({row.id})" if seq is not None else f"a record of {chain} ({row.id})"


def _seq(row: AuditRow) -> int | None:
    try:
        seq = json.loads(row.record)["seq"]
    except (ValueError, KeyError, TypeError):
        return None
    return seq if isinstance(seq, int) else None
