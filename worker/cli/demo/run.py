"""Runs `vigil demo`: a complete Vigil in a temporary folder, one job per outcome, a live table, the result."""

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

from worker.cli.demo.cases import CASES, SPEED, DemoCase, find_mismatch
from worker.cli.errors import EXIT_FAILED, CliError, wants_traceback
from worker.cli.rendering import TERMINAL_STATUSES, format_duration, seconds_between
from worker.cli.up import Running, everything
from worker.clock import Clock
from worker.settings import Settings
from worker.settings_loader import load
from worker.telemetry.log import configure

_MODEL: Final = "gpt-5.6-sol"
_TIMEOUT_S: Final = 30.0
_POLL_INTERVAL_S: Final = 0.25
_STYLES: Final = {"completed": "green", "blocked": "red", "failed": "red", "checking": "magenta", "running": "cyan"}
_NARROW_WIDTH: Final = 100


@dataclass(slots=True)
class DemoRow:
    """One job of the demo, as it is now."""

    case: DemoCase
    job: dict[str, Any] | None = None
    id: str | None = None

    @property
    def settled(self) -> bool:
        """Return whether the job has settled."""
        return self.job is not None and self.job["status"] in TERMINAL_STATUSES

    def verdict(self) -> dict[str, Any]:
        """Return the row of `--json`."""
        job = self.job or {}
        wrong = find_mismatch(self.case, self.job)
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
            "check_seconds": round(check_seconds(job), 3),
            "attempts": len(job.get("attempts") or []),
            "cost": (job.get("cost") or {}).get("total"),
        }


def check_seconds(job: Mapping[str, Any]) -> float:
    """Return the seconds that the job has spent in checks, signalled or suspected."""
    checks = (job.get("safety") or {}).get("checks") or []
    return float(sum(seconds_between(c["started_at"], c.get("ended_at")) for c in checks if c.get("started_at")))


def demo_settings(folder: Path) -> Settings:
    """Return settings that override the user's: the demo calls no other machine and leaves nothing on this one."""
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
            "identifier_secret": "of a demonstration, and of nothing else",
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
    """Submits the cases and polls them until all have settled."""

    def __init__(self, http: httpx2.AsyncClient, rows: Sequence[DemoRow]) -> None:
        self._http, self.rows = http, rows

    async def play(self, stop: asyncio.Event) -> None:
        """Submit the jobs; return when all have settled, after a timeout, or when `stop` is set."""
        for last in (False, True):  # an open circuit would hold the others
            batch = [row for row in self.rows if row.case.last == last]
            await asyncio.gather(*(self._submit(row) for row in batch))
            until = Clock().monotonic() + _TIMEOUT_S
            while not stop.is_set() and not all(row.settled for row in batch) and Clock().monotonic() < until:
                await self._poll(batch)
                await asyncio.sleep(_POLL_INTERVAL_S)

    async def _submit(self, row: DemoRow) -> None:
        body = {"model": _MODEL, "input": row.case.directive, "metadata": {"scenario": row.case.scenario}}
        if row.case.policy:
            body["policy"] = dict(row.case.policy)
        answer = await self._http.post("/v1/jobs", json=body)
        if answer.status_code == httpx2.codes.ACCEPTED:
            row.job = answer.json()
            row.id = row.job["id"] if row.job else None

    async def _poll(self, batch: Sequence[DemoRow]) -> None:
        for row in batch:
            if row.id is None or row.settled:
                continue
            answer = await self._http.get(f"/v1/jobs/{row.id}")
            if answer.is_success:
                row.job = answer.json()
            if row.case.cancel and row.job and row.job.get("attempts") and not row.settled:
                await self._http.post(f"/v1/jobs/{row.id}/cancel")


def render_table(rows: Sequence[DemoRow], width: int) -> Table:
    """Build the table of the current state."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    narrow = width < _NARROW_WIDTH
    for name in (
        ("", "job", "status") if narrow else ("", "job", "scenario", "status", "served by", "check", "tries", "cost")
    ):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for row in rows:
        job = row.job or {}
        status = str(job.get("status", ""))
        mark = " " if not row.settled else "[green]✓[/]" if find_mismatch(row.case, row.job) is None else "[red]✗[/]"
        painted = f"[{_STYLES[status]}]{status}[/]" if status in _STYLES else status
        if narrow:
            table.add_row(mark, row.case.title, painted)
            continue
        served = job.get("served_model") or ""
        requested = job.get("requested_model")
        check = check_seconds(job)
        table.add_row(
            mark,
            row.case.title,
            row.case.scenario,
            painted,
            f"[yellow]{served}[/]" if served and served != requested else served,
            format_duration(check) if check else "",
            str(len(job.get("attempts") or [])) if job else "",
            str((job.get("cost") or {}).get("total") or ""),
        )
    return table


async def _show_live(console: Console, rows: Sequence[DemoRow], playing: asyncio.Task[None]) -> None:
    with Live(render_table(rows, console.width), console=console, auto_refresh=False) as live:
        while not playing.done():
            await asyncio.wait({playing}, timeout=_POLL_INTERVAL_S)
            live.update(render_table(rows, console.width), refresh=True)


async def _show_plain(rows: Sequence[DemoRow], playing: asyncio.Task[None], *, quiet: bool) -> None:
    printed: dict[int, str] = {}
    while True:
        settled = playing.done()
        for number, row in enumerate(rows):
            status = str(row.job["status"]) if row.job else ""
            if status and printed.get(number) != status and not quiet:
                printed[number] = status
                print(f"{row.case.title:<26} {status}", flush=True)
        if settled:
            return
        await asyncio.wait({playing}, timeout=_POLL_INTERVAL_S)


async def run_demo(stop: asyncio.Event, *, as_json: bool) -> int:
    """Run the demo. Return 0 if each job ended as expected, else 1."""
    console = Console()
    rows = [DemoRow(case) for case in CASES]
    clock = Clock()
    begun = clock.monotonic()
    configure("DEBUG" if wants_traceback() else "CRITICAL", "console")  # the faults here are simulated
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
        print(f"{len(rows) - len(wrong)} of {len(rows)} jobs ended as expected, {clock.monotonic() - begun:.0f} s.")
        for one in wrong:
            print(f"vigil: {one['title']} ({one['scenario']}): {one['wrong']}", file=sys.stderr)
        if not wrong:
            print("Next: `vigil up` keeps a Vigil running; set OPENAI_API_KEY to use the real provider.")
    return EXIT_FAILED if wrong else 0


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
