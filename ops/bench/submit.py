"""Submit throughput: our POST /v1/jobs beside the bare framework, in one run.

    python ops/bench/submit.py [--rounds 9] [--seconds 2] [--connections 32] [--json]

The reference is FastAPI on uvicorn (uvloop, httptools) with one validated POST and one pipelined Redis write (MULTI of
HSET, EXPIRE, XADD). Each server is one process on a Valkey of its own that flushes before each answer; both get the
same 2 kB bodies over the same keep-alive connections, round by round in turn: many short rounds, because a busy machine
changes by the second; the ratio is the median over pairs of neighbours. Then half of what each could take is offered
at random moments, for the p99. No worker runs.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import uuid
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter  # the loop's own clock counts in milliseconds
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
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
    new_key,
    percentile,
    post,
    run,
)

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.store.connection.pool import connect

_THIS = Path(__file__).resolve()
_TARGET = 0.6
_WARM_SECONDS = 1.0
_HALF_SECONDS = 6.0
_TICK = 0.001  # seconds; the grain of the offered load
_TTL = 86_400
_NO_END = {"VIGIL_RATE_PER_MINUTE": "6000000"}  # counted as always, and never used up
_BODY = {
    "model": "gpt-5.6-sol",
    "input": ("Why is the sky blue? " * 100)[:1850],
    "metadata": {"ticket": "A-17", "desk": "north"},
    "priority": "default",
}


# -- the reference


class BareJob(BaseModel):
    """What a small service would validate."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(min_length=1, max_length=100)]
    input: Annotated[str, Field(min_length=1)]
    metadata: dict[str, str] = {}
    priority: Literal["high", "default", "low"] = "default"


def serve_reference(url: str, port: int) -> None:
    """The process of the reference; serves until it is told to end."""
    app, redis = FastAPI(), Redis.from_url(url)

    @app.post("/v1/jobs", status_code=202)
    async def submit(job: BareJob) -> dict[str, str]:
        job_id = f"job_{uuid.uuid4().hex}"
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hset(f"job:{job_id}", mapping={"status": "queued", "body": job.model_dump_json()})
            pipe.expire(f"job:{job_id}", _TTL)
            pipe.xadd("jobs", {"id": job_id})
            await pipe.execute()
        return {"id": job_id, "status": "queued"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        await redis.ping()
        return {"status": "ok"}

    uvicorn.run(app, host=HOST, port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


# -- the load


@dataclass
class Load:
    """What came of a round."""

    done: int = 0
    wrong: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    waits: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.done / self.seconds


async def full(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """As much as the server takes: every connection sends again as soon as it has its answer."""
    load, stop = Load(), asyncio.Event()
    lines = [await Line.open(port) for _ in range(connections)]
    began = perf_counter()
    end = began + seconds

    def again(line: Line, status: int, _: bytes) -> None:
        if status != 202:  # noqa: PLR2004
            load.wrong += 1
            stop.set()
        elif perf_counter() < end:
            load.done += 1
            line.send(request, again)

    for line in lines:
        line.send(request, again)
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
    load.seconds = perf_counter() - began
    await asyncio.sleep(0.2)  # the last answers
    for line in lines:
        line.close()
    return load


async def offered(port: int, request: bytes, connections: int, seconds: float, rate: float) -> Load:
    """`rate` requests a second at random moments, whatever the server does; waits count from the moment offered."""
    load, clock = Load(), Clock()
    idle = deque([await Line.open(port) for _ in range(connections)])
    queue: deque[float] = deque()
    lines = list(idle)

    def go(line: Line, since: float) -> None:
        def done(line: Line, status: int, _: bytes) -> None:
            if status != 202:  # noqa: PLR2004
                load.wrong += 1
                return
            load.done += 1
            load.waits.append((perf_counter() - since) * 1000)
            if queue:
                go(line, queue.popleft())
            else:
                idle.append(line)

        line.send(request, done)

    began = due = perf_counter()
    while (now := perf_counter()) < began + seconds and not load.wrong:
        while due <= now:
            due -= math.log(1.0 - clock.random()) / rate
            if idle:
                go(idle.popleft(), now)
            else:
                queue.append(now)
        await asyncio.sleep(_TICK)
    load.seconds = perf_counter() - began
    await asyncio.sleep(0.3)
    for line in lines:
        line.close()
    return load


# -- the measurement


@dataclass
class Side:
    """A server and what came of its rounds."""

    name: str
    port: int
    valkey: EmbeddedValkey
    process: asyncio.subprocess.Process
    rounds: list[Load] = field(default_factory=list)
    half: Load = field(default_factory=Load)

    async def request(self) -> bytes:
        """Empty the Valkey; the request to send from now on."""
        redis = connect(self.valkey.url, max_connections=1)
        try:
            await redis.flushall()
        finally:
            await redis.aclose()
        return post("/v1/jobs", _BODY, await new_key(self.valkey.url))

    async def measured(self, what: Coroutine[Any, Any, Load]) -> Load:
        """The round with the CPU it cost the server."""
        before = cpu_seconds(self.process.pid)
        load = await what
        load.cpu = cpu_seconds(self.process.pid) - before
        if load.wrong or not load.done:
            raise RuntimeError(f"{self.name}: {load.wrong} of {load.done + load.wrong} requests were not accepted")
        return load

    @property
    def rate(self) -> float:
        """Requests a second, median of the rounds."""
        return median(load.rate for load in self.rounds)

    @property
    def cpu(self) -> float:
        """CPU of the server per request, in microseconds, median of the rounds."""
        return median(load.cpu / load.done * 1e6 for load in self.rounds)


async def _sides(deployment: Deployment) -> tuple[Side, Side]:
    ours, bare = await deployment.valkey("ours"), await deployment.valkey("bare")
    ports = free_port(), free_port()
    api = await deployment.start(VIGIL, "api", "--port", str(ports[0]), env={"VIGIL_REDIS_URL": ours.url, **_NO_END})
    words = (sys.executable, _THIS, "--serve-reference", bare.url, "--port", str(ports[1]))
    framework = await deployment.start(*words)
    for port in ports:
        await deployment.until(f"the server on port {port}", partial(answers, port, "/readyz"))
    return Side("vigil", ports[0], ours, api), Side("bare framework", ports[1], bare, framework)


async def measure(rounds: int, seconds: float, connections: int) -> Report:
    """Rounds in turn, then half the load for each."""
    async with Deployment() as deployment:
        sides = ours, bare = await _sides(deployment)
        for side in sides:
            await full(side.port, await side.request(), connections, _WARM_SECONDS)
        for number in range(rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                request = await side.request()
                side.rounds.append(await side.measured(full(side.port, request, connections, seconds)))
        for side in sides:
            request = await side.request()
            half = offered(side.port, request, connections, max(_HALF_SECONDS, seconds), side.rate / 2)
            side.half = await side.measured(half)
    return _report(ours, bare)


def _range(values: list[float]) -> tuple[float, float, float]:
    return min(values), median(values), max(values)


def _report(ours: Side, bare: Side) -> Report:
    report = Report("submit")
    rows = [
        (
            side.name,
            len(side.rounds),
            *(f"{rate:.0f}" for rate in _range([load.rate for load in side.rounds])),
            f"{side.cpu:.0f}",
            f"{side.half.rate:.0f}",
            percentile(side.half.waits, 0.5),
            percentile(side.half.waits, 0.99),
        )
        for side in (ours, bare)
    ]
    head = ("", "rounds", "req/s least", "median", "most", "CPU us/req", "half load: req/s", "p50 ms", "p99 ms")
    report.table(head, rows)
    ratios = [a.rate / b.rate for a, b in zip(ours.rounds, bare.rounds, strict=True)]
    least, ratio, most = _range(ratios)
    report.lines.append(f"submits/s, vigil / bare framework, pair by pair: {least:.2f} to {most:.2f}")
    report.figures = [
        Figure.at_least("submits/s, vigil / bare framework", ratio, _TARGET, "times"),
        Figure("CPU of the server per submit, bare framework / vigil", bare.cpu / ours.cpu, "times"),
        Figure("submits/s, vigil", ours.rate, "req/s"),
        Figure("p99 of a submit at half load, vigil", percentile(ours.half.waits, 0.99), "ms"),
        Figure("p99 of a submit at half load, bare framework", percentile(bare.half.waits, 0.99), "ms"),
    ]
    return report


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, choices=range(1, 31), metavar="1-30")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round, 1 to 30")
    parser.add_argument("--connections", type=int, default=32, help="1 to 256")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--serve-reference", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_reference:
        serve_reference(args.serve_reference, args.port)
        return
    if not 1 <= args.seconds <= 30 or not 1 <= args.connections <= 256:  # noqa: PLR2004
        parser.error("--seconds is 1 to 30, --connections 1 to 256")
    limit = 80 + 2 * (args.rounds + 1) * (args.seconds + 2)
    run(measure(args.rounds, args.seconds, args.connections), seconds=limit).show(as_json=args.json)


if __name__ == "__main__":
    main()
