"""Replays delay rules on an app's newest jobs, from the audit trail, for the console's chart: one run at a time, in
slices, and its result is kept for a while.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import ValidationError

from api.runtime.background_work import BackgroundWork
from api.runtime.slices import Slices, in_slices
from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.jobs.errors import StoreUnavailable
from worker.jobs.spec import OnDelay
from worker.lab.evaluate import grid_in_steps
from worker.lab.model import ACTIONS, THRESHOLDS, LabCases, PolicyResult
from worker.lab.trails import JobCourses
from worker.store.audit.trail import Trail, record_prefix
from worker.telemetry.internal_errors import report_internal_error

MAX_RECORDS: Final = 20_000
"""The records of the app that a run reads, the newest."""
MAX_SCANNED: Final = 200_000
"""The records of all apps among which it looks for them."""
_PAGE: Final = 250
_MAX_S: Final = 300.0
_FRESH_S: Final = 600.0
_MAX_KEPT: Final = 50

LabFailure = Literal["store_unavailable", "too_long", "internal_error"]


@dataclass(frozen=True, slots=True)
class LabRun:
    """A run: the rule of most of the newest jobs (`today`, marked in the chart), and one row for each rule.

    `today_row` is the row of that rule, None while it runs, or when no job can be replayed.
    """

    started_at: datetime
    finished_at: datetime | None = None
    jobs: int = 0
    left_out: tuple[tuple[str, int], ...] = ()
    today: OnDelay | None = None
    today_share: float = 0.0
    rows: tuple[PolicyResult, ...] = ()
    today_row: PolicyResult | None = None
    failure: LabFailure | None = None


class LabRuns:
    """The newest run of each app."""

    def __init__(self, trail: Trail, clock: Clock, catalogue: Catalogue, background: BackgroundWork) -> None:
        self._trail, self._clock, self._catalogue, self._background = trail, clock, catalogue, background
        self._runs: OrderedDict[str, tuple[float, LabRun]] = OrderedDict()
        self._turn = asyncio.Semaphore(1)

    def of_app(self, app: str) -> LabRun | None:
        """Return the app's newest run, under way or over, or None before the first."""
        at_and_run = self._runs.get(app)
        return None if at_and_run is None else at_and_run[1]

    def start(self, app: str, *, again: bool = False) -> LabRun:
        """Start a run unless one is under way or has ended lately (`again`: even then); return the newest."""
        at, run = self._runs.get(app, (0.0, None))
        if run is not None and (run.finished_at is None or (not again and self._clock.monotonic() - at < _FRESH_S)):
            return run
        run = LabRun(self._clock.now())
        self._keep(app, run)
        self._background.start("lab", self._run(app, run))
        return run

    def _keep(self, app: str, run: LabRun) -> None:
        self._runs[app] = (self._clock.monotonic(), run)
        self._runs.move_to_end(app)
        while len(self._runs) > _MAX_KEPT:
            self._runs.popitem(last=False)

    async def _run(self, app: str, run: LabRun) -> None:
        try:
            async with self._turn, asyncio.timeout(_MAX_S):
                run = await self._evaluated(run, await self._read(app))
        except TimeoutError:
            run = replace(run, failure="too_long")
        except StoreUnavailable:
            run = replace(run, failure="store_unavailable")
        except Exception as error:  # noqa: BLE001  it must be told, and the next run must be possible
            report_internal_error("api.broke", error)
            run = replace(run, failure="internal_error")
        finally:
            self._keep(app, replace(run, finished_at=self._clock.now()))

    async def _read(self, app: str) -> list[dict[str, Any]]:
        """Return the app's newest records, oldest first, without those that can't be read."""
        found, prefix, high, scanned, slices = list[dict[str, Any]](), record_prefix(app), "+", 0, Slices()
        while len(found) < MAX_RECORDS and scanned < MAX_SCANNED:
            rows = await self._trail.page_before(high, _PAGE)
            scanned += len(rows)
            for row in rows:
                if row.record.startswith(prefix):
                    found += _needed(row.record)
            await slices.rest()
            if len(rows) < _PAGE:
                break
            high = f"({rows[-1].id}"
        return found[::-1]

    async def _evaluated(self, run: LabRun, records: Sequence[dict[str, Any]]) -> LabRun:
        courses, rules = JobCourses(), Counter[OnDelay]()
        async for record in in_slices(records):
            try:
                courses.add(record)
                if record["type"] == "job.queued":
                    rules[OnDelay.model_validate(record["data"]["policy"]["on_delay"])] += 1
            except (ValueError, KeyError, TypeError, ValidationError):
                continue  # of another release: the verification of the trail names what is no record
        cases = courses.cases("audit trail")
        today = rules.most_common(1)[0][0] if rules else OnDelay()
        run = replace(
            run,
            jobs=len(cases.cases),
            left_out=cases.left_out,
            today=today,
            today_share=rules[today] / rules.total() if rules else 0.0,
        )
        return run if not cases.cases else await self._with_rows(run, cases, today)

    async def _with_rows(self, run: LabRun, cases: LabCases, today: OnDelay) -> LabRun:
        rules = [
            OnDelay(action=action, after_seconds=after, silence_seconds=today.silence_seconds, model=today.model)
            for action in ACTIONS
            for after in THRESHOLDS
        ]
        catalogue = self._catalogue.as_of(self._clock.now())
        steps = grid_in_steps(cases.cases, catalogue, [*rules, today], today.model)
        rows = [row async for row in in_slices(steps) if row is not None]
        return replace(run, rows=tuple(rows[:-1]), today_row=rows[-1])


def _needed(raw: bytes) -> list[dict[str, Any]]:
    """Return the record with what a replay reads of it, or nothing if it is no record."""
    try:
        body = json.loads(raw)
        return [{name: body[name] for name in ("type", "at", "job_id", "attempt", "data")}]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
