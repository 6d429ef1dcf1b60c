"""Writes and reads segments: a range of whole seals with the records that they seal, NDJSON compressed with zstd. Pure.

The first line is a header; then come the lines of each seal's records as in an export, and behind them the seal itself.
The header names the end users of jobs that began in an earlier segment, so that each segment can be searched alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import zstandard

from worker.audit.chain import AuditRow, canonical, chain_of_row, export_line, stream_id
from worker.audit.export import read_row
from worker.audit.seals import BadSeal, Digest, Seal, parse

FORMAT: Final = "vigil-audit-segment-1"
MAX_RECORDS: Final = 20_000
"""Approximate number of records in a segment: it is read whole."""
MAX_BYTES: Final = 16 * 2**20
"""Approximate number of bytes of its lines."""
MAX_OBJECT_BYTES: Final = 64 * 2**20
"""A larger object is no segment."""
_MAX_RAW_BYTES: Final = 256 * 2**20
_LEVEL: Final = 9
_ROW: Final = b'{"hash":"'


class BadSegment(ValueError):
    """The bytes are no segment; the message says why."""


@dataclass(frozen=True)
class Segment:
    """One segment. `seals` and `rows` are in the order of the trail; `named`: the header's end users of jobs."""

    seals: Sequence[Seal]
    rows: Sequence[AuditRow]
    named: Mapping[str, str | None] = field(default_factory=dict)

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """Return the ids of its records, as they sort."""
        return [stream_id(row.id) for row in self.rows]

    @cached_property
    def by_chain(self) -> dict[str, list[AuditRow]]:
        """Return its records by their chains."""
        found: dict[str, list[AuditRow]] = {}
        for row in self.rows:
            found.setdefault(chain_of_row(row), []).append(row)
        return found

    @cached_property
    def end_users(self) -> dict[str, str | None]:
        """Return the end user of each of its jobs, as far as known; None = it has none."""
        return {**self.named, **first_end_users(self.rows)}


def first_end_users(rows: Iterable[AuditRow]) -> dict[str, str | None]:
    """Return the end users that these records name, if they are the first of their jobs."""
    found: dict[str, str | None] = {}
    for row in rows:
        if b'"seq":1,' not in row.record:
            continue
        try:
            body = json.loads(row.record)
            if body["seq"] == 1:
                person = (body.get("data") or {}).get("safety_identifier")
                found[str(body["job_id"])] = person if isinstance(person, str) else None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue  # the verification names it
    return found


def unnamed_jobs(rows: Iterable[AuditRow]) -> list[str]:
    """Return the jobs of these records whose first record is not among them."""
    named = first_end_users(rows)
    chains = dict.fromkeys(chain_of_row(row) for row in rows)
    return [chain for chain in chains if chain and not chain.startswith("app:") and chain not in named]


def write_segment(parts: Sequence[tuple[Seal, Sequence[AuditRow]]], named: Mapping[str, str | None]) -> bytes:
    """Return the object of these seals with their records.

    Raises BadSegment unless the records of each are exactly what it sealed: nothing else must leave Redis.
    """
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
    out = [packed.compress(canonical({"format": FORMAT, "end_users": dict(named)}) + b"\n")]
    for seal, rows in parts:
        lines = [export_line(row) for row in rows]
        fault = seal_difference(seal, lines)
        if fault is not None:
            raise BadSegment(fault)
        out.append(packed.compress(b"".join(line + b"\n" for line in (*lines, seal.line))))
    out.append(packed.flush())
    return b"".join(out)


def seal_difference(seal: Seal, lines: Sequence[bytes]) -> str | None:
    """Return how these lines are not what the seal says, or None."""
    if seal.kind != "checkpoint":
        return f"seal {seal.number} seals no records" if lines else None
    digest = Digest()
    for line in lines:
        digest.add(line)
    if digest.count != seal.body["count"]:
        return f"checkpoint {seal.number} sealed {seal.body['count']:,} records, there are {digest.count:,}"
    if digest.hexdigest() != seal.body["digest"]:
        return f"the records of checkpoint {seal.number} are not what it sealed"
    return None


def read_segment(content: bytes) -> Segment:
    """Return what an object holds. Raises BadSegment if that is no segment."""
    seals, rows = list[Seal](), list[AuditRow]()
    lines = _lines(content)
    named = _header(next(lines, b""))
    for number, line in enumerate(lines, 2):
        if line.startswith(_ROW):
            row = read_row(line)
            if row is None:
                raise BadSegment(f"line {number} is not in the form of an export")
            rows.append(row)
            continue
        try:
            seals.append(parse(line))
        except BadSeal as error:
            raise BadSegment(f"line {number} is neither a record nor a seal ({error})") from None
    return Segment(seals, rows, named)


def _lines(content: bytes) -> Iterator[bytes]:
    try:
        with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(io.BytesIO(content)) as reader:
            raw = reader.read(_MAX_RAW_BYTES)
    except zstandard.ZstdError:
        raise BadSegment("is not compressed with zstd") from None
    if not raw.endswith(b"\n") or len(raw) >= _MAX_RAW_BYTES:
        raise BadSegment("does not end where a segment ends")
    yield from raw[:-1].split(b"\n")


def _header(line: bytes) -> dict[str, str | None]:
    try:
        header: Any = json.loads(line)
        if header["format"] != FORMAT:
            raise BadSegment(f"is of another format than {FORMAT}")
        return {str(job_id): person for job_id, person in header["end_users"].items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise error if isinstance(error, BadSegment) else BadSegment("has no header") from None


def object_digest(content: bytes) -> str:
    """Return the SHA-256 of an object."""
    return hashlib.sha256(content).hexdigest()
