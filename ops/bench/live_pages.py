"""Open pages of the console on one API process: what they cost it, and what they do to submits beside them.

    python ops/bench/live_pages.py [--pages 200] [--sessions 40] [--rate 200] [--seconds 15] [--json]

Half of the pages show *Now*, half the page of a waiting job; each asks again when the page says so, with its version,
as console.js does. `vigil api` and Valkey are processes of their own. Windows of equal length: nothing, pages alone,
submits alone, both. Commands of Redis are all that it processed, also those that the API sends without any request;
those of a pipeline count one by one.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
from report import HOST, VIGIL, Deployment, Report, answers, cpu_seconds, free_port, new_key, percentile, run

from worker.clock import Clock
from worker.store.apps import Apps
from worker.store.connection.pool import connect
from worker.store.console_access import ConsoleAccess

_JOB = {"model": "gpt-5.6-sol", "input": "Why is the sky blue?", "not_before": "2026-12-20T00:00:00Z"}
CLOCK = Clock()
_VERSION = re.compile(r'data-version="([^"]*)"')
_REFRESH = re.compile(r'data-refresh="([^"]*)"')


@dataclass
class Window:
    """What happened within one window."""

    name: str
    pages: list[float] = field(default_factory=list)
    submits: list[float] = field(default_factory=list)
    failures: int = 0
    unchanged: int = 0
    cpu: float = 0.0
    commands: float = 0.0


class OpenPage:
    """A page as a browser keeps it open."""

    def __init__(self, client: httpx2.AsyncClient, path: str, token: str) -> None:
        self._client, self._path = client, path
        self._headers = {"Accept": "text/html", "Cookie": f"vigil_console={token}"}
        self.version, self.refresh = "", 3.0

    async def open(self) -> None:
        """Load the page."""
        answer = await self._client.get(self._path, headers=self._headers)
        answer.raise_for_status()
        self._read(answer.text)

    def _read(self, text: str) -> None:
        version, refresh = _VERSION.search(text), _REFRESH.search(text)
        self.version = version[1] if version else ""
        self.refresh = float(refresh[1]) if refresh else 3.0

    async def live(self, window: Window, end: float) -> None:
        """Ask for newer states until the window ends."""
        await asyncio.sleep(self.refresh * CLOCK.random())
        while time.monotonic() < end:
            began = time.monotonic()
            headers = {**self._headers, "Vigil-Live": "1", "If-None-Match": f'"{self.version}"'}
            answer = await self._client.get(self._path, headers=headers)
            window.pages.append(time.monotonic() - began)
            if answer.status_code == httpx2.codes.OK:
                self._read(answer.text)
            elif answer.status_code == httpx2.codes.NOT_MODIFIED:
                window.unchanged += 1
            else:
                window.failures += 1
            await asyncio.sleep(self.refresh)


async def _submits(client: httpx2.AsyncClient, key: str, rate: float, window: Window, end: float) -> None:
    tasks, due = set[asyncio.Task[None]](), time.monotonic()
    while (due := due + 1 / rate) < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.create_task(_submit(client, key, window))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def _submit(client: httpx2.AsyncClient, key: str, window: Window) -> None:
    began = time.monotonic()
    answer = await client.post("/v1/jobs", json=_JOB, headers={"Authorization": f"Bearer {key}"})
    window.submits.append(time.monotonic() - began)
    window.failures += answer.status_code != httpx2.codes.ACCEPTED


async def _measure(args: argparse.Namespace) -> Report:
    report = Report("live_pages")
    async with Deployment() as deployment:
        valkey, port = await deployment.valkey("store"), free_port()
        env = {"VIGIL_REDIS_URL": valkey.url, "VIGIL_PORT": str(port), "VIGIL_LOG_LEVEL": "ERROR"}
        api = await deployment.start(VIGIL, "api", env=env)
        await deployment.until("the API answers", lambda: answers(port, "/readyz"))
        redis = connect(valkey.url, max_connections=2)
        limits = httpx2.Limits(max_connections=400, max_keepalive_connections=400)
        base = f"http://{HOST}:{port}"
        async with httpx2.AsyncClient(base_url=base, timeout=30, trust_env=False, limits=limits) as client:
            key = await new_key(valkey.url)
            pages = await _open(client, redis, key, args)
            for name, with_pages, with_submits in (
                ("nothing", False, False),
                ("pages", True, False),
                ("submits", False, True),
                ("both", True, True),
            ):
                window = Window(name)
                cpu, commands = cpu_seconds(api.pid), await _commands(redis)
                end = time.monotonic() + args.seconds
                tasks = [page.live(window, end) for page in pages] if with_pages else []
                tasks += [_submits(client, key, args.rate, window, end)] if with_submits else []
                await asyncio.gather(asyncio.sleep(args.seconds), *tasks)
                window.cpu = (cpu_seconds(api.pid) - cpu) / args.seconds
                window.commands = (await _commands(redis) - commands - 1) / args.seconds
                _add(report, window, args)
        await redis.aclose()
    return report


async def _open(client: httpx2.AsyncClient, redis: Any, key: str, args: argparse.Namespace) -> list[OpenPage]:
    """Return the pages, opened: of Now, and of jobs that wait."""
    found = await Apps(redis, Clock()).find(key)
    if found is None:
        raise RuntimeError("the key is not there")
    tokens = [await ConsoleAccess(redis, Clock()).begin_session(found.id) for _ in range(args.sessions)]
    headers = {"Authorization": f"Bearer {key}"}
    job_ids = [(await client.post("/v1/jobs", json=_JOB, headers=headers)).json()["id"] for _ in range(10)]
    paths = ["/console/now" if n % 2 else f"/console/jobs/{job_ids[n % len(job_ids)]}" for n in range(args.pages)]
    pages = [OpenPage(client, path, tokens[n % len(tokens)]) for n, path in enumerate(paths)]
    for page in pages:
        await page.open()
    return pages


async def _commands(redis: Any) -> int:
    return int((await redis.info("stats"))["total_commands_processed"])


def _add(report: Report, window: Window, args: argparse.Namespace) -> None:
    parts = [f"{window.name}: CPU {100 * window.cpu:.0f} % of a core, {window.commands:.1f} commands of Redis a second"]
    for title, times in (("live requests", window.pages), ("submits", window.submits)):
        if times:
            p50, p99 = 1000 * percentile(times, 0.5), 1000 * percentile(times, 0.99)
            parts.append(f"{len(times) / args.seconds:.0f} {title} a second, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    if window.pages:
        parts.append(f"{100 * window.unchanged / len(window.pages):.0f} % unchanged")
    report.lines.append("; ".join([*parts, f"{window.failures} failed"]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    run(_measure(args), seconds=6 * args.seconds + 60).show(as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
