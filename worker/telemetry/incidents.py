"""Collects incidents until they are reported: many occurrences of one group are one report with their number.

`add` is called where something happens and only notes it. A loop (`worker/store/stats/incidents.py`) asks Redis every
second what may be reported, because all processes share a budget for each group; a process without such a loop, or
without Redis, has one of its own. Who sends a report is installed by `sentry.py`; without it nothing is collected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.telemetry.report_budget import QUIET_S, Budget
from worker.telemetry.sentry_issues import cause_of, overflow_of

_MAX_GROUPS: Final = 40  # of one cause in one process, for example receivers; further ones are "other"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One of the occurrences that a report stands for: tags, trace, and the exception if it is a bug."""

    tags: Mapping[str, str]
    trace: Mapping[str, str] = field(default_factory=dict)
    exception: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class IncidentReport:
    """What is sent: the group, how many occurrences it stands for, how many reports came before, one occurrence."""

    group: str
    count: int
    number: int
    occurrence: Occurrence


Send = Callable[[IncidentReport], None]


class Incidents:
    """The incidents of this process."""

    def __init__(self) -> None:
        self._send: Send | None = None
        self._pending: dict[str, int] = {}
        # cause -> group -> (the first occurrence since Redis was asked, when it was)
        self._known: dict[str, dict[str, tuple[Occurrence, float]]] = {}
        self._budget = Budget()
        self._loops, self._counted = 0, False
        self._uncertain: list[dict[str, int]] = []  # pending ones that a loop is asking Redis about

    @property
    def wanted(self) -> bool:
        """Whether anybody is told of incidents."""
        return self._send is not None

    def install(self, send: Send | None) -> None:
        """Report with this function from now on; None: forget what is pending."""
        self._send, self._budget = send, Budget()
        self._pending.clear()
        self._known.clear()
        self._uncertain.clear()

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        """Leave reporting to a loop, as long as the block lasts."""
        self._loops += 1
        try:
            yield
        finally:
            self._loops -= 1

    def add(self, group: str, occurrence: Occurrence, now: float) -> None:
        """Note an occurrence; report it now if this process has no loop that asks Redis."""
        if self._send is None:
            return
        known = self._known.setdefault(cause_of(group), {})
        if group not in known and len(known) >= _MAX_GROUPS:
            known = self._known[cause_of(group)] = {g: one for g, one in known.items() if now - one[1] < QUIET_S}
        if group not in known and len(known) >= _MAX_GROUPS:
            group = overflow_of(group)
        if group not in self._pending:
            known[group] = (occurrence, now)
        self._pending[group] = self._pending.get(group, 0) + 1
        if not self._loops:
            self.report_alone(now)

    def note_end(self) -> None:
        """Note that this process has committed an abnormal end, which the commit itself has counted."""
        self._counted = True

    def take_pending(self) -> dict[str, int]:
        """Return the occurrences by group since the last call, and 0 for groups that this process can describe.

        `settle` must follow.
        """
        known = dict.fromkeys(self.known_groups(), 0)
        pending, self._pending, self._counted = {**known, **self._pending}, {}, False
        self._uncertain.append(pending)
        return pending

    def settle(self, pending: dict[str, int], reports: Iterable[IncidentReport] | None, now: float) -> None:
        """Send the reports that Redis allows after counting what was pending; None: it could not be counted."""
        if not any(one is pending for one in self._uncertain):
            return  # this process has reported it alone meanwhile
        self._uncertain = [one for one in self._uncertain if one is not pending]
        if reports is None:
            for group, count in pending.items():
                self._pending[group] = self._pending.get(group, 0) + count
            self.report_alone(now)
            return
        self.send(reports, now)

    def known_groups(self) -> list[str]:
        """Return the groups that this process can describe."""
        return [group for groups in self._known.values() for group in groups]

    def send(self, reports: Iterable[IncidentReport], now: float) -> None:
        """Send reports that Redis has handed to this process."""
        for report in reports:
            self._budget.note_report(report.group, report.number, now)
            if self._send is not None:
                self._send(report)

    def report_all(self, now: float) -> None:
        """Report alone what nobody was asked about or is asked about just now: the process ends."""
        for pending in self._uncertain:
            for group, count in pending.items():
                self._pending[group] = self._pending.get(group, 0) + count
        self._uncertain.clear()
        self.report_alone(now)

    @property
    def is_empty(self) -> bool:
        """Whether nothing has happened since the last `take_pending`."""
        return not self._pending and not self._counted

    def occurrence_of(self, group: str) -> Occurrence | None:
        """Return an occurrence of the group in this process, or None."""
        found = self._known.get(cause_of(group), {}).get(group)
        return None if found is None else found[0]

    def report_alone(self, now: float) -> None:
        """Report what the budget of this process allows."""
        pending, self._pending = self._pending, {}
        for group in {*pending, *self._budget.groups()}:
            due, found = self._budget.take(group, pending.get(group, 0), now), self.occurrence_of(group)
            if due is not None and found is not None and self._send is not None:
                self._send(IncidentReport(group, due[0], due[1], found))


INCIDENTS: Final = Incidents()
"""The incidents of this process."""
