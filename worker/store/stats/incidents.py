"""Count incidents in Redis for all processes together, so that one report stands for those of every worker.

An abnormal end of a job is counted in the commit that ends it (`worker/store/jobs/end_counts.py`): who commits decides,
and an end that was committed by a worker that died is reported by another one. Everything else is counted when the
process that met it asks, once a second. A report that a process took and could not send any more is lost; what follows
says how many there were since.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import RecordUnreadable, StoreUnavailable
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.jobs.end_counts import INCIDENTS_TTL_S
from worker.store.values import report_unreadable
from worker.telemetry import sentry_issues
from worker.telemetry.incidents import INCIDENTS, IncidentReport, Incidents, Occurrence
from worker.telemetry.report_budget import INTERVALS_S, QUIET_S

_PASS_S: Final = 1.0
_PASSES_PER_LOOK: Final = 10  # passes between two looks for what other processes left behind
_TRACE: Final = re.compile("([0-9a-f]{32})-([0-9a-f]{16})")
_BUGS: Final = " ".join(cause for cause, issue in sentry_issues.CAUSES.items() if issue.bug)
"""Causes that only a process that has the exception reports."""


class IncidentReporter:
    """Reports the incidents of this process, and ends of jobs that another one could not report."""

    def __init__(
        self, redis: ArqRedis, clock: Clock, incidents: Incidents = INCIDENTS, *, counted_only: bool = False
    ) -> None:
        """`counted_only`: report what commits have counted in this store; another one counts all else that happens."""
        self._clock, self._incidents, self._counted_only = clock, incidents, counted_only
        self._script: Any = script(redis, "stats/take_incidents")
        self._passes, self._turn = 0, asyncio.Lock()

    async def run(self) -> None:
        """Report once a second, until cancelled."""
        while self._counted_only:
            await asyncio.shield(self.report())
            await asyncio.sleep(_PASS_S)
        with self._incidents.sharing():
            while True:
                await self.report_soon()
                await asyncio.sleep(_PASS_S)

    async def report_soon(self) -> None:
        """Report what has happened here since the last pass; now and then also what others left behind."""
        self._passes += 1
        if not self._incidents.is_empty or self._passes % _PASSES_PER_LOOK == 1:
            await asyncio.shield(self.report())  # a report that Redis has handed out must be sent

    async def report(self) -> None:
        """Report what may be reported now. Without Redis this process decides alone."""
        async with self._turn:
            if self._incidents.wanted and self._counted_only:
                await self._ask_counted()
            elif self._incidents.wanted:
                await self._ask()

    async def _ask_counted(self) -> None:
        try:
            with contextlib.suppress(StoreUnavailable):
                due = await self._take(dict.fromkeys(self._incidents.known_groups(), 0))
                self._incidents.send(due, self._clock.monotonic())
        except RecordUnreadable as error:
            report_unreadable(error)

    async def _ask(self) -> None:
        pending = self._incidents.take_pending()
        due: list[IncidentReport] | None = None
        try:
            due = await self._take(pending)
        except StoreUnavailable:
            pass  # the process's `StoreWatch` reports it
        except RecordUnreadable as error:
            report_unreadable(error)
        finally:
            self._incidents.settle(pending, due, self._clock.monotonic())

    async def _take(self, pending: dict[str, int]) -> list[IncidentReport]:
        intervals = " ".join(str(seconds * 1000) for seconds in INTERVALS_S)
        offered = [word for pair in pending.items() for word in pair]
        args = [QUIET_S * 1000, INCIDENTS_TTL_S, _BUGS, intervals, *offered]
        async with store_errors("count incidents", keys.INCIDENTS):
            found = await self._script(keys=[keys.INCIDENTS], args=args)
        rows = zip(*(iter(found),) * 4, strict=True)
        reports = [self._read(group.decode(errors="replace"), *rest) for group, *rest in rows]
        return [report for report in reports if report is not None]

    def _read(self, group: str, count: int, number: int, described: bytes) -> IncidentReport | None:
        """Return a report; None for one of another release, or that Vigil did not write."""
        if not sentry_issues.cause_of(group):
            return None
        occurrence = self._incidents.occurrence_of(group) or _described(described)
        return IncidentReport(group, int(count), int(number), occurrence)


def _described(raw: bytes) -> Occurrence:
    """Return the occurrence that a commit has described; without tags if it can't be read."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
        found = json.loads(raw)
        own = {name: sentry_issues.identifier_or_other(value) for name, value in found["tags"].items()}
        trace = _TRACE.fullmatch(found["trace"])
        return Occurrence(
            {name: value for name, value in own.items() if name in sentry_issues.TAGS},
            {"trace_id": trace[1], "span_id": trace[2]} if trace is not None else {},
        )
    return Occurrence({})
