"""What `vigil demo` does: a whole Vigil in a throw-away folder, one job per outcome, a live table, a verdict."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from rich.console import Console
from rich.live import Live
from rich.table import Table

from worker.cli.demo.cases import CASES, SPEED, DemoCase, judge
from worker.cli.errors import BAD, CliError, wants_traceback
from worker.cli.rendering import TERMINAL_STATUSES, clock_face, seconds_between
from worker.cli.up import Running, everything
from worker.clock import Clock
from worker.settings import Settings
from worker.settings_loader import load
from worker.telemetry.log import configure

_MODEL: Final = "gpt-5.6-sol"
_PATIENCE: Final = 30.0
_LOOK_EVERY: Final = 0.25
_STYLES: Final = {"completed": "green", "blocked": "red", "failed": "red", "checking": "magenta", "running": "cyan"}
_NARROW: Final = 100


@dataclass(slots=True)
class DemoRow:
    """One job of the demo, as it is now."""

    case: DemoCase
    job: dict[str, Any] | None = None
    id: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has settled."""
        return self.job is not None and self.job["status"] in TERMINAL_STATUSES

    def verdict(self) -> dict[str, Any]:
        """The row of `--json`."""
        job = self.job or {}
        wrong = judge(self.case, self.job)
        return {
            "job": self.id,
            "title": self.case.title,
            "scenario": self.case.scenario,
            "expected": self.case.expected(),
            "status": job.get("status"),
            "ok": wrong is None,
            "wrong": wrong,
            "requested_model": job.get("requested_model"),
            "served_model": job.get("served_model"),
            "check_seconds": round(checked(job), 3),
            "attempts": len(job.get("attempts") or []),
            "cost": (job.get("cost") or {}).get("total"),
        }


def checked(job: Mapping[str, Any]) -> float:
    """Seconds that the job has spent in checks, signalled or suspected."""
    checks = (job.get("safety") or {}).get("checks") or []
    return float(sum(seconds_between(c["started_at"], c.get("ended_at")) for c in checks if c.get("started_at")))


def demo_settings(folder: Path) -> Settings:
    """The user's settings do not count here: nothing leaves this machine and nothing stays on it."""
    return load(
        {
            "redis_url": None,
            "data_dir": folder,
            "host": "127.0.0.1",
            "port": 0,
            "upstream": "background",
            "max_jobs": 100,
            "drain_seconds": 1.0,
            "models_file": None,
            "encryption_keys": (),
            "identifier_secret": "demo",
            "log_level": "ERROR",
            "OPENAI_API_KEY": None,
            "OPENAI_BASE_URL": None,
            "OPENAI_ORG_ID": None,
            "OPENAI_PROJECT_ID": None,
            "OPENAI_WEBHOOK_SECRET": None,
            "SENTRY_DSN": None,
            "HTTPS_PROXY": None,
        }
    )


class Demo:
    """Submits the cases, looks at them until all have ended."""

    def __init__(self, http: httpx2.AsyncClient, rows: Sequence[DemoRow]) -> None:
        self._http, self.rows = http, rows

    async def play(self, stop: asyncio.Event) -> None:
        """All jobs have ended, or time is up, or `stop` is set."""
        for last in (False, True):  # an account's circuit would hold the others
            batch = [row for row in self.rows if row.case.last == last]
            await asyncio.gather(*(self._submit(row) for row in batch))
            until = Clock().monotonic() + _PATIENCE
            while not stop.is_set() and not all(row.over for row in batch) and Clock().monotonic() < until:
                await self._look(batch)
                await asyncio.sleep(_LOOK_EVERY)

    async def _submit(self, row: DemoRow) -> None:
        body = {"model": _MODEL, "input": row.case.directive, "metadata": {"scenario": row.case.scenario}}
        if row.case.policy:
            body["policy"] = dict(row.case.policy)
        answer = await self._http.post("/v1/jobs", json=body)
        if answer.status_code == httpx2.codes.ACCEPTED:
            row.job = answer.json()
            row.id = row.job["id"] if row.job else None

    async def _look(self, batch: Sequence[DemoRow]) -> None:
        for row in batch:
            if row.id is None or row.over:
                continue
            answer = await self._http.get(f"/v1/jobs/{row.id}")
            if answer.is_success:
                row.job = answer.json()
            if row.case.cancel and row.job and row.job.get("attempts") and not row.over:
                await self._http.post(f"/v1/jobs/{row.id}/cancel")


def picture(rows: Sequence[DemoRow], width: int) -> Table:
    """The table as it is now."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    narrow = width < _NARROW
    for name in (
        ("", "job", "status") if narrow else ("", "job", "scenario", "status", "served by", "check", "tries", "cost")
    ):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for row in rows:
        job = row.job or {}
        status = str(job.get("status", ""))
        mark = " " if not row.over else "[green]✓[/]" if judge(row.case, row.job) is None else "[red]✗[/]"
        painted = f"[{_STYLES[status]}]{status}[/]" if status in _STYLES else status
        if narrow:
            table.add_row(mark, row.case.title, painted)
            continue
        served = job.get("served_model") or ""
        asked = job.get("requested_model")
        check = checked(job)
        table.add_row(
            mark,
            row.case.title,
            row.case.scenario,
            painted,
            f"[yellow]{served}[/]" if served and served != asked else served,
            clock_face(check) if check else "",
            str(len(job.get("attempts") or [])) if job else "",
            str((job.get("cost") or {}).get("total") or ""),
        )
    return table


async def _show_live(console: Console, rows: Sequence[DemoRow], playing: asyncio.Task[None]) -> None:
    with Live(picture(rows, console.width), console=console, auto_refresh=False) as live:
        while not playing.done():
            await asyncio.wait({playing}, timeout=_LOOK_EVERY)
            live.update(picture(rows, console.width), refresh=True)


async def _show_plain(rows: Sequence[DemoRow], playing: asyncio.Task[None], *, quiet: bool) -> None:
    told: dict[int, str] = {}
    while True:
        over = playing.done()
        for number, row in enumerate(rows):
            status = str(row.job["status"]) if row.job else ""
            if status and told.get(number) != status and not quiet:
                told[number] = status
                print(f"{row.case.title:<26} {status}", flush=True)
        if over:
            return
        await asyncio.wait({playing}, timeout=_LOOK_EVERY)


async def run_demo(stop: asyncio.Event, *, as_json: bool) -> int:
    """Play the demo; 0 when each job came out as it should."""
    console = Console()
    rows = [DemoRow(case) for case in CASES]
    clock = Clock()
    begun = clock.monotonic()
    configure("DEBUG" if wants_traceback() else "CRITICAL", "console")  # the faults here are played
    folder = Path(tempfile.mkdtemp(prefix="vigil-demo-"))
    try:
        async with everything(demo_settings(folder), stop, speed=SPEED) as running:
            await _play(running, rows, stop, console, as_json=as_json)
            if stop.is_set():
                raise CliError("stopped before all jobs had ended")
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    verdicts = [row.verdict() for row in rows]
    wrong = [one for one in verdicts if not one["ok"]]
    if as_json:
        print(json.dumps({"ok": not wrong, "jobs": verdicts}, indent=2))
    else:
        print(
            f"{len(rows) - len(wrong)} of {len(rows)} jobs came out as they should, {clock.monotonic() - begun:.0f} s."
        )
        for one in wrong:
            print(f"vigil: {one['title']} ({one['scenario']}): {one['wrong']}", file=sys.stderr)
        if not wrong:
            print("Next: `vigil up` keeps one running; set OPENAI_API_KEY to use the real provider.")
    return BAD if wrong else 0


async def _play(
    running: Running, rows: Sequence[DemoRow], stop: asyncio.Event, console: Console, *, as_json: bool
) -> None:
    headers = {"Authorization": f"Bearer {running.key}"}
    async with httpx2.AsyncClient(base_url=running.url, headers=headers, timeout=30, trust_env=False) as http:
        playing = asyncio.create_task(Demo(http, rows).play(stop))
        live = console.is_terminal and not console.is_dumb_terminal and not as_json
        shown = _show_live(console, rows, playing) if live else _show_plain(rows, playing, quiet=as_json)
        await shown
        await playing
