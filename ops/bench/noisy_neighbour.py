"""What one app can do to another: attacks on one API process, and what the neighbour sees of them meanwhile.

    python ops/bench/noisy_neighbour.py [--attack NAME ...] [--seconds 15] [--rate 25] [--json]

`vigil api` and Valkey are processes of their own, and so is the attacker. The neighbour, another app, submits a job and
gets /healthz `rate` times a second each, at fixed moments, whether earlier ones were answered or not. Windows without
and with the attack take turns; the ratio is p99 under attack over p99 of the quiet windows around it. Exits 1 if a
ratio is above 2 or a request of the neighbour fails.

Add an attack: a function with `@attack(fault, "what it does")` that runs until `until` (of the loop's clock) and counts
what it gets in `target.got`. It may only use `target`: the port, a key with `submit` and `read`, the id of a job.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import cast

import uvloop
from report import (
    HOST,
    VIGIL,
    Deployment,
    Figure,
    Line,
    Report,
    answers,
    cpu_seconds,
    free_port,
    get,
    percentile,
    post,
    run,
)

from worker.clock import Clock
from worker.store.apps import Apps
from worker.store.connection.pool import connect

_MAX_RATIO = 2.0
_BODY = {"model": "gpt-5.6-sol", "input": "Why is the sky blue? " * 20}
_POLLS = 5_100
_STREAMS = 5_000
_APP_BYTES = 100 * 2**20  # what one app's jobs may hold, so that it is reached within a window
_BURST = 1_500
_ATTACKER_NICE = 15  # attackers have machines of their own; here one must not take the CPU of API and Redis
_MAX_IDLE = 5.0  # seconds; the server closes idle connections after 30


# -- the attacks, in a process of their own


@dataclass
class Target:
    """What an attacker has: the API's port, a key of its own app, a job of its own that never ends."""

    port: int
    key: str
    job: str
    got: Counter[str] = field(default_factory=Counter)


AttackFunction = Callable[[Target, float], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """An attack of the registry."""

    fault: int
    about: str
    run: AttackFunction


ATTACKS: dict[str, Attack] = {}


def attack(fault: int, about: str) -> Callable[[AttackFunction], AttackFunction]:
    """Register an attack under the name of its function."""

    def add(function: AttackFunction) -> AttackFunction:
        ATTACKS[function.__name__] = Attack(fault, about, function)
        return function

    return add


async def _open(target: Target, request: bytes, *, wait: float) -> asyncio.StreamWriter | None:
    """Send a request; count the status that comes within `wait` seconds, and return the connection if it is kept."""
    try:
        reader, writer = await asyncio.open_connection(HOST, target.port)
    except OSError:
        target.got["refused connection"] += 1
        return None
    writer.write(request)
    try:
        async with asyncio.timeout(wait):
            line = await reader.readline()
        target.got[line[9:12].decode() or "closed"] += 1
        if line[9:12] == b"200":
            return writer
    except TimeoutError:
        target.got["no answer yet"] += 1
        return writer
    except OSError:
        target.got["closed"] += 1
    writer.close()
    return None


async def _many(count: int, until: float, one: Callable[[], Awaitable[None]]) -> None:
    """Do something so many times, evenly up to a second before `until`, whether the earlier ones have ended or not."""
    loop = asyncio.get_running_loop()
    began, tasks = loop.time(), list[asyncio.Task[None]]()
    pause = max(0.0, until - 1.0 - began) / count
    for step in range(count):
        ahead = began + step * pause - loop.time()
        if ahead > 0:
            await asyncio.sleep(ahead)
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)


@attack(2, f"{_POLLS:,} long polls with wait=60, each left at once")
async def abandoned_polls(target: Target, until: float) -> None:
    """Open polls and close them before they are answered."""

    async def one() -> None:
        writer = await _open(target, get(f"/v1/jobs/{target.job}?wait=60", target.key), wait=0.05)
        if writer is not None:
            writer.close()

    await _many(_POLLS, until, one)


@attack(3, f"{_STREAMS:,} event streams of one key, held; what is refused is tried again")
async def held_streams(target: Target, until: float) -> None:
    """Open streams and keep them."""
    kept: list[asyncio.StreamWriter] = []

    async def one() -> None:
        writer = await _open(target, get(f"/v1/jobs/{target.job}/events", target.key), wait=5.0)
        if writer is not None:
            kept.append(writer)

    await _many(_STREAMS, until, one)
    await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))
    for writer in kept:
        writer.close()


@attack(3, "12,000 connections without a key that send half a head")
async def silent_connections(target: Target, until: float) -> None:
    """Open connections, more than there may be, and say next to nothing."""
    kept: list[asyncio.StreamWriter] = []

    async def one() -> None:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, target.port)
            writer.write(b"GET / HT")
            kept.append(writer)
            target.got["opened"] += 1

    await _many(12_000, until, one)
    await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))
    for writer in kept:
        writer.close()


@attack(3, f"bursts of {_BURST:,} connections without a key, which all send a request at once")
async def connection_bursts(target: Target, until: float) -> None:
    """Open many connections, send a request on each, leave, and begin again."""
    loop = asyncio.get_running_loop()

    async def one() -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        with suppress(OSError):
            target.got["opened"] += 1
            return await asyncio.open_connection(HOST, target.port)
        return None

    while loop.time() < until - 1.0:
        lines = [line for line in await asyncio.gather(*(one() for _ in range(_BURST))) if line is not None]
        await asyncio.sleep(0.3)
        for _, writer in lines:
            writer.write(get("/v1/jobs", "nobody"))
        for reader, writer in lines:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    target.got[(await reader.readline())[9:12].decode() or "closed"] += 1
            writer.close()
        await asyncio.sleep(0.5)


@attack(4, "half webhooks of the provider, without a secret to sign them")
async def half_webhooks(target: Target, until: float) -> None:
    """Send heads whose bodies never come."""
    head = f"POST /hooks/openai HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 60000\r\n\r\n{{".encode()

    async def one() -> None:
        writer = await _open(target, head, wait=1.0)
        if writer is not None:
            writer.close()

    await _many(3_000, until, one)


_WORST_BODIES = (
    {"model": "gpt-5.6-sol", "input": "x", **{f"unknown{i}": 1 for i in range(8_000)}},
    {"model": "gpt-5.6-sol", "input": ("1" * 3_999 + "x") * 250},
    {"model": "gpt-5.6-sol", "input": "x", "policy": {"fallback": [""] * 200_000}},
    {"model": "gpt-5.6-sol", "input": [{"role": "user", "content": "x"}] * 25_000},
)


@attack(1, "the worst bodies of up to 1 MiB, four connections, each again as soon as it is answered")
async def worst_bodies(target: Target, until: float) -> None:
    """Send bodies that are long to parse, to check or to refuse."""
    await _repeat(target, until, [post("/v1/jobs", body, target.key) for body in _WORST_BODIES])


@attack(5, "jobs of 780 kB that begin in six days, four connections, each again as soon as it is answered")
async def full_queue(target: Target, until: float) -> None:
    """Fill Redis with jobs that wait."""
    begins = (Clock().now() + timedelta(days=6)).isoformat()
    body = {"model": "gpt-5.6-sol", "input": "x" * 780_000, "not_before": begins}
    await _repeat(target, until, [post("/v1/jobs", body, target.key)] * 4)


async def _repeat(target: Target, until: float, requests: Sequence[bytes]) -> None:
    """Send each request over a connection of its own, again and again."""

    async def one(request: bytes) -> None:
        while asyncio.get_running_loop().time() < until:
            writer = await _open(target, request, wait=5.0)
            if writer is not None:
                writer.close()

    await asyncio.gather(*(one(request) for request in requests))


async def attack_from_outside(name: str, port: int, key: str, job: str, seconds: float) -> None:
    """Run one attack, and print what it got."""
    target = Target(port, key, job)
    print("ready", flush=True)
    await ATTACKS[name].run(target, asyncio.get_running_loop().time() + seconds)
    print(json.dumps(target.got), flush=True)


# -- the neighbour


@dataclass
class Seen:
    """What the neighbour saw in one window: seconds of each answer, by route, and what went wrong."""

    submits: list[float] = field(default_factory=list)
    healths: list[float] = field(default_factory=list)
    wrong: Counter[int] = field(default_factory=Counter)
    cpu: float = 0.0
    """Seconds of CPU that the API used; on a busy machine it says more than the times."""

    def p99(self) -> tuple[float, float]:
        """Return the p99 of submit and of /healthz, in milliseconds."""
        return 1000 * percentile(self.submits, 0.99), 1000 * percentile(self.healths, 0.99)


class Neighbour:
    """Another app of the same API."""

    def __init__(self, port: int, key: str, rate: float, api: int) -> None:
        self._port, self._rate, self._api = port, rate, api
        self._submit, self._health = post("/v1/jobs", _BODY, key), get("/healthz")
        self._lines: list[tuple[float, Line]] = []

    async def watch(self, seconds: float) -> Seen:
        """Send requests for so long, at fixed moments, and return what came of them."""
        seen, loop, used = Seen(), asyncio.get_running_loop(), cpu_seconds(self._api)
        began, tasks = loop.time(), list[asyncio.Task[None]]()
        for step in range(int(seconds * self._rate)):
            await asyncio.sleep(max(0.0, began + step / self._rate - loop.time()))
            tasks.append(asyncio.create_task(self._ask(self._submit, seen.submits, seen.wrong)))
            tasks.append(asyncio.create_task(self._ask(self._health, seen.healths, seen.wrong)))
        await asyncio.gather(*tasks)
        seen.cpu = cpu_seconds(self._api) - used
        return seen

    async def _ask(self, request: bytes, waits: list[float], wrong: Counter[int]) -> None:
        began = perf_counter()
        self._lines = [(at, line) for at, line in self._lines if began - at < _MAX_IDLE]
        line = self._lines.pop()[1] if self._lines else await Line.open(self._port)
        status, _ = await line.ask(request)
        waits.append(perf_counter() - began)
        if status in {200, 202}:
            self._lines.append((perf_counter(), line))
        else:
            wrong[status] += 1
            line.close()


# -- the bench


async def _keys(url: str) -> tuple[str, str]:
    """Return a key of the attacker and one of the neighbour."""
    redis = connect(url, max_connections=1)
    try:
        apps = Apps(redis, Clock())
        attacker = (await apps.create_key("attacker", ("submit", "read")))[1]
        return attacker, (await apps.create_key("neighbour", ("submit", "read")))[1]
    finally:
        await redis.aclose()


async def bench(args: argparse.Namespace) -> Report:
    """Run the attacks one after another."""
    report, rows = Report("noisy_neighbour"), []
    async with Deployment() as deployment:
        server, port = await deployment.valkey("data"), free_port()
        attacker, own = await _keys(server.url)
        env = {"VIGIL_REDIS_URL": server.url, "VIGIL_LOG_LEVEL": "WARNING", "VIGIL_APP_MAX_BYTES": str(_APP_BYTES)}
        api = await deployment.start(VIGIL, "api", "--port", str(port), env=env)
        await deployment.until("the API's readiness", lambda: answers(port, "/readyz"))
        line = await Line.open(port)
        _, body = await line.ask(post("/v1/jobs", _BODY, attacker))
        line.close()
        job, neighbour = str(json.loads(body)["id"]), Neighbour(port, own, args.rate, api.pid)
        await neighbour.watch(1.0)  # warm
        before = await neighbour.watch(args.seconds)
        for name in args.attack or ATTACKS:
            words = [sys.executable, Path(__file__), "--run", name, port, attacker, job, args.seconds + 1]
            child = await deployment.start(*map(str, words), piped=True)
            out = cast("asyncio.StreamReader", child.stdout)
            await out.readline()
            under = await neighbour.watch(args.seconds)
            got = json.loads(await out.readline() or b"{}")
            await child.wait()
            await neighbour.watch(1.0)  # what was left behind is cleared away
            after = await neighbour.watch(args.seconds)
            rows.append(_row(report, name, got, (before, under, after)))
            before = after
    head = ("attack", "what the attacker got", "submit p99 ms", "quiet", "ratio", "/healthz p99 ms", "quiet", "ratio")
    report.table((*head, "CPU s of the API", "quiet"), rows)
    return report


def _row(report: Report, name: str, got: dict[str, int], windows: tuple[Seen, Seen, Seen]) -> list[object]:
    before, under, after = windows
    out: list[object] = [f"{ATTACKS[name].fault} {name}", ", ".join(f"{n} x {what}" for what, n in sorted(got.items()))]
    for index, route in enumerate(("submit", "/healthz")):
        quiet, attacked = (before.p99()[index] + after.p99()[index]) / 2, under.p99()[index]
        out += [attacked, quiet, attacked / quiet]
        report.figures.append(Figure.at_most(f"{name}: p99 of {route} over quiet", attacked / quiet, _MAX_RATIO, ""))
    out += [under.cpu, (before.cpu + after.cpu) / 2]
    failed = sum(under.wrong.values())
    report.figures.append(Figure.at_most(f"{name}: requests of the neighbour that failed", failed, 0, ""))
    return out


def main() -> int:
    """Run the command."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == ["--run"]:
        os.nice(_ATTACKER_NICE)
        name, port, key, job, seconds = sys.argv[2:]
        uvloop.run(attack_from_outside(name, int(port), key, job, float(seconds)))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", action="append", choices=list(ATTACKS), help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a window")
    parser.add_argument("--rate", type=float, default=25.0, help="requests of the neighbour a second, to each route")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    report = run(bench(args), seconds=300)
    report.show(as_json=args.json)
    return 0 if all(figure.met is not False for figure in report.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
