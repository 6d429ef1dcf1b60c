"""The faults that a comparison of Redis with the audit trail has found, and their words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from worker.audit.diagnose import AuditFault, TamperKind
from worker.audit.report import Report
from worker.jobs.errors import RecordUnreadable

_MAX_NAMED: Final = 1_000
_WORDS: Final = {
    "no_mac": "has no MAC: it is older than MACs (`vigil store seal`), or Vigil did not write it",
    "wrong_mac": "has a wrong MAC: it was changed, moved or put there by something else than Vigil",
    "unknown_key": "has a MAC of a master key that VIGIL_ENCRYPTION_KEYS does not hold",
    "gone": "is gone",
}


class FaultList:
    """Names each fault in the report up to a limit; counts the others."""

    def __init__(self, report: Report) -> None:
        self._report, self._named, self._more = report, 0, 0

    def add(self, faults: Iterable[AuditFault]) -> None:
        """Add faults."""
        for fault in faults:
            if self._named < _MAX_NAMED:
                self._named += 1
                self._report.faults.append(fault)
            else:
                self._more += 1

    def add_text(self, detail: str, record: str | None = None) -> None:
        """Add the fault of a record that belongs to no job."""
        self.add([AuditFault(TamperKind.RECORD, detail, record)])

    def finish(self) -> None:
        """Add how many more faults there were."""
        if self._more:
            self._report.faults.append(AuditFault(TamperKind.RECORD, f"{self._more:,} more differences"))


def explain(error: RecordUnreadable) -> str:
    """Return what is wrong with a record, as the end of a sentence."""
    return _WORDS.get(error.why, f"can't be read ({error.why})")
