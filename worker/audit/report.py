"""Renders the result of a proof, for people and for programs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from worker.audit.diagnose import AuditFault


@dataclass(slots=True)
class Report:
    """The counts of the records, the faults, and notes on what could not be proven.

    `compared`: how many values in Redis were compared with the trail, by kind; empty if none were to be.
    """

    records: int = 0
    jobs: int = 0
    seals: int = 0
    unsealed: int = 0
    kept: int = 0
    removed: int = 0
    removed_before: str | None = None
    compared: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    faults: list[AuditFault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Return whether there are no faults."""
        return not self.faults

    def dump(self) -> dict[str, Any]:
        """Return the report as JSON values; `first_bad` is null without a fault."""
        faults = [fault.dump() for fault in self.faults]
        return {
            "ok": self.good,
            "records": self.records,
            "jobs": self.jobs,
            "checkpoints": self.seals,
            "unsealed": self.unsealed,
            "kept_by_hold": self.kept,
            "removed_by_retention": self.removed,
            "removed_before": self.removed_before,
            **({"compared": self.compared} if self.compared else {}),
            "seconds": round(self.seconds, 3),
            "first_bad": faults[0] if faults else None,
            "faults": faults,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        lines = [f"{self.records:,} records of {self.jobs:,} jobs read in {self.seconds:.1f} s"]
        lines[0] += f", {self.seals:,} checkpoints, {self.unsealed:,} records not sealed yet"
        if self.removed:
            lines.append(f"{self.removed:,} records before {self.removed_before} were removed by retention")
        if self.kept:
            lines.append(f"{self.kept:,} records of that time were kept by a legal hold")
        if self.compared:
            counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self.compared.items())
            lines.append(f"compared with the trail: {counts}")
        lines += self.notes
        if self.good:
            return [*lines, "ok: nothing was altered, removed, inserted, reordered or truncated"]
        first, *more = self.faults
        return [*lines, f"BAD: {first.kind}: {first.detail}", *(f"also {f.kind}: {f.detail}" for f in more)]
