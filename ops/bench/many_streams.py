"""One worker process on one core under many streams: event lag, memory, leases; beside it the SDK's typed stream.

    python ops/bench/many_streams.py [--streams 500] [--rate 20] [--seconds 60] [--silent 5000] [--json]

1. `--streams` jobs at `--rate` deltas a second; every delta carries the time it was sent. `--watch` of them are watched
   through the API as an app would: the lag is from the provider's write to the app's read, all of it included.
2. `--silent` jobs that wait in a safety check.
3. The reference: the SDK's typed stream in one process on the same core over such streams, for a quarter of the time.
The worker (and the reference) is pinned to one CPU; provider, API, Valkey and this script share the others. Content is
encrypted, each write is flushed. A job must have one attempt and no rescue, or the bench says so and exits 1.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

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
    new_key,
    percentile,
    post,
    run,
)

from worker.store.connection.pool import Redis, connect

_THIS = Path(__file__).resolve()
_STAMPING = _THIS.with_name("stamping.py")
_LAG_MS, _KB = 250.0, 80.0
_BATCH = 500
_MASTER = base64.urlsafe_b64encode(bytes(range(32))).decode()
_OPENING = 2.0  # seconds that the provider waits before the first delta
_OK = 200


def resident_kb(pid: int) -> float:
    """Resident memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return float(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


@dataclass
class VigilSide:
    """What runs."""

    deployment: Deployment
    redis: Redis
    worker: asyncio.subprocess.Process
    api: int
    key: str
    provider: int

    async def submit(self, prompt: str, count: int) -> list[str]:
        """Ids of new jobs, through the API."""
        line, ids = await Line.open(self.api), list[str]()
        while len(ids) < count:
            jobs = [{"model": "gpt-5.6-sol", "input": prompt}] * min(_BATCH, count - len(ids))
            for job in jobs:
                job["policy"] = {"on_delay": {"action": "wait"}}
            status, body = await line.ask(post("/v1/jobs/batch", {"jobs": jobs}, self.key))
            if status != _OK or any(row["status"] != 202 for row in json.loads(body)):  # noqa: PLR2004
                raise RuntimeError(f"the batch was refused: {status} {body[:300]!r}")
            ids += [row["job"]["id"] for row in json.loads(body)]
        line.close()
        return ids

    async def job(self, job_id: str) -> dict[str, Any]:
        """The job as an app reads it."""
        line = await Line.open(self.api)
        _, body = await line.ask(get(f"/v1/jobs/{job_id}", self.key))
        line.close()
        found: dict[str, Any] = json.loads(body)
        return found

    async def left(self) -> int:
        """Jobs that are not settled."""
        status, body = await _ask(self.api, "/v1/status", self.key)
        queue = json.loads(body)["queue"] if status == _OK else {}
        return sum(int(queue[name]) for name in ("queued", "scheduled", "running", "checking")) if queue else 1

    async def faults(self, ids: Sequence[str]) -> list[str]:
        """What is wrong with the jobs, a line each: more than one attempt, or another end than completed."""
        jobs = list[dict[str, Any]]()
        for start in range(0, len(ids), 50):
            jobs += await asyncio.gather(*(self.job(one) for one in ids[start : start + 50]))
        return [
            f"{job['id']}: {job['status']}, {len(job['attempts'])} attempts"
            for job in jobs
            if job["status"] != "completed" or len(job["attempts"]) != 1 or job["attempts"][0]["resumed"]
        ]


async def _ask(port: int, path: str, key: str = "") -> tuple[int, bytes]:
    line = await Line.open(port)
    try:
        return await line.ask(get(path, key))
    finally:
        line.close()


async def _start(deployment: Deployment, most: int, rate: float, seconds: float) -> VigilSide:
    feed, port = free_port(), free_port()
    await deployment.start(
        sys.executable, _STAMPING, "--port", str(feed), "--rate", str(rate), "--seconds", str(seconds)
    )
    valkey = await deployment.valkey("ours")
    env = {
        "VIGIL_REDIS_URL": valkey.url,
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": f"http://{HOST}:{feed}/v1",
        "VIGIL_ENCRYPTION_KEYS": _MASTER,
        "VIGIL_PROBE_SECONDS": "0",
        "VIGIL_RATE_PER_MINUTE": "0",
        "VIGIL_LOG_FORMAT": "json",
    }
    key = await new_key(valkey.url, _MASTER)
    await deployment.start(VIGIL, "api", "--port", str(port), env=env)
    worker = await deployment.start(VIGIL, "worker", "--max-jobs", str(most), env=env)
    _pin(worker.pid)
    redis = connect(valkey.url, max_connections=1)

    async def ready() -> bool:
        return bool(await redis.hlen("vigil:workers")) and await answers(port, "/readyz") and await answers(feed, "/x")

    await deployment.until("the API, the worker and the provider", ready)
    return VigilSide(deployment, redis, worker, port, key, feed)


def _pin(pid: int) -> None:
    """The process has one CPU, everything else that we start or are shares the others."""
    cpus = sorted(os.sched_getaffinity(0))
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cpus[:1])


@dataclass
class Watched:
    """What the watchers saw."""

    lags: list[float] = field(default_factory=list)  # milliseconds, one for each delta
    broken: int = 0


async def _watch(vigil: VigilSide, job_id: str, seen: Watched) -> None:
    reader, writer = await asyncio.open_connection(HOST, vigil.api)
    writer.write(get(f"/v1/jobs/{job_id}/events", vigil.key))
    text = ""
    try:
        async for raw in reader:
            if not raw.startswith(b"data:"):
                continue
            event = json.loads(raw[5:])
            if event["type"] == "job.output.delta":
                now, data = monotonic(), event["data"]
                seen.broken += data["offset"] != len(text)
                text += data["delta"]
                seen.lags += [(now - float(stamp)) * 1000 for stamp in data["delta"].split()]
            elif event["type"] in {"job.completed", "job.failed", "job.expired", "job.blocked"}:
                return
    finally:
        writer.close()


@dataclass
class Phase:
    """What a phase cost the worker."""

    kb: float
    cpu: float  # share of one core
    wrong: list[str]


async def _loud(vigil: VigilSide, streams: int, watch: int, seconds: float, seen: Watched) -> Phase:
    warm = await vigil.submit("check 0", 50)
    await _until_left(vigil, 0, 60)
    before = resident_kb(vigil.worker.pid)
    ids = await vigil.submit("stream", streams)
    watching = [asyncio.create_task(_watch(vigil, one, seen)) for one in ids[:: max(1, streams // watch)]]
    await asyncio.sleep(_OPENING + seconds / 4)
    began, cpu = monotonic(), cpu_seconds(vigil.worker.pid)
    await asyncio.sleep(seconds / 2)
    used = (cpu_seconds(vigil.worker.pid) - cpu) / (monotonic() - began)
    per_stream = (resident_kb(vigil.worker.pid) - before) / streams
    await asyncio.wait_for(asyncio.gather(*watching), seconds + 60)
    await _until_left(vigil, 0, seconds + 60)
    return Phase(per_stream, used, await vigil.faults([*warm, *ids]))


async def _silent(vigil: VigilSide, count: int) -> Phase:
    before = resident_kb(vigil.worker.pid)
    hold = 30 + count / 100  # long enough for all of them to be there at once
    ids = await vigil.submit(f"check {hold}", count)

    async def all_checking() -> bool:
        _, body = await _ask(vigil.api, "/v1/status", vigil.key)
        return bool(json.loads(body)["queue"]["checking"] == count)

    await vigil.deployment.until("all to wait in a check", all_checking)
    began, cpu = monotonic(), cpu_seconds(vigil.worker.pid)
    await asyncio.sleep(15)
    used = (cpu_seconds(vigil.worker.pid) - cpu) / (monotonic() - began)
    per_stream = (resident_kb(vigil.worker.pid) - before) / count
    await _until_left(vigil, 0, hold + 120)
    return Phase(per_stream, used, await vigil.faults(ids))


async def _until_left(vigil: VigilSide, count: int, seconds: float) -> None:
    end = monotonic() + seconds
    while await vigil.left() > count:
        if monotonic() > end:
            raise RuntimeError(f"{await vigil.left()} jobs did not settle\n{vigil.deployment.logs()}")
        await asyncio.sleep(0.5)


# -- the reference


async def _typed(port: int, streams: int) -> None:
    """Reads the same streams as most applications do, and prints lags, CPU share and memory as JSON."""
    import openai  # noqa: PLC0415  only this process measures it

    lags: list[float] = []
    base, url = resident_kb(os.getpid()), f"http://{HOST}:{port}/v1"
    async with openai.AsyncOpenAI(api_key="sk-bench", base_url=url, max_retries=0, timeout=None) as client:

        async def one() -> None:
            async for event in await client.responses.create(model="m", input="stream", stream=True):
                if event.type == "response.output_text.delta" and event.delta:
                    lags.append((monotonic() - float(event.delta)) * 1000)  # noqa: PERF401  events, not a list

        cpu = cpu_seconds(os.getpid())
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(one())
        used = (cpu_seconds(os.getpid()) - cpu) / (monotonic() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"p50": percentile(lags, 0.5), "p99": percentile(lags, 0.99), "cpu": used,
                      "kb": (peak - base) / streams, "deltas": len(lags)}))  # fmt: skip


async def _reference(deployment: Deployment, streams: int, rate: float, seconds: float) -> dict[str, float]:
    feed = free_port()
    await deployment.start(
        sys.executable, _STAMPING, "--port", str(feed), "--rate", str(rate), "--seconds", str(seconds)
    )
    await deployment.until("the provider", lambda: answers(feed, "/x"))
    process = await deployment.start(sys.executable, _THIS, "--typed", str(feed), "--streams", str(streams), piped=True)
    _pin(process.pid)
    if process.stdout is None:
        raise RuntimeError("no pipe")
    result: dict[str, float] = json.loads(await process.stdout.read())
    return result


# -- all of it


async def measure(streams: int, rate: float, seconds: float, silent: int, watch: int) -> Report:
    """The three phases, one after another."""
    report, seen = Report("many_streams"), Watched()
    quiet = Phase(0.0, 0.0, [])
    async with Deployment() as deployment:
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) > 1:
            os.sched_setaffinity(0, cpus[1:])  # what we start inherits it; the worker is pinned to the first
        vigil = await _start(deployment, max(streams, silent) + 100, rate, seconds)
        try:
            loud = await _loud(vigil, streams, watch, seconds, seen)
            if silent:
                quiet = await _silent(vigil, silent)
        finally:
            await vigil.redis.aclose()
    async with Deployment() as deployment:
        typed = await _reference(deployment, streams, rate, max(5.0, seconds / 4))
    wrong = [*loud.wrong, *quiet.wrong]
    rows = [
        ("vigil, to the app's read", len(seen.lags), percentile(seen.lags, 0.5), percentile(seen.lags, 0.99),
         loud.cpu * 100, loud.kb),
        ("SDK's typed stream, to its event", int(typed["deltas"]), typed["p50"], typed["p99"], typed["cpu"] * 100,
         typed["kb"]),
    ]  # fmt: skip
    report.table((f"{streams} x {rate:g}/s", "deltas seen", "lag p50 ms", "p99 ms", "% of a core", "kB/stream"), rows)
    report.lines += [f"{silent} silent checks: {quiet.cpu * 100:.1f} % of a core, {quiet.kb:.1f} kB each", *wrong[:10]]
    report.figures = [
        Figure.at_most("event lag p99, provider's write to app's read", percentile(seen.lags, 0.99), _LAG_MS, "ms"),
        Figure("event lag p99, SDK's typed stream / vigil", typed["p99"] / percentile(seen.lags, 0.99), "times"),
        Figure.at_most("resident per running stream", loud.kb, _KB, "kB"),
        Figure.at_most("jobs with a lost lease, or not completed at once", len(wrong), 0, ""),
        Figure.at_most("deltas out of place at a watcher", seen.broken, 0, ""),
    ]
    if silent:
        report.figures.append(Figure("resident per silent check", quiet.kb, "kB"))
    return report


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--silent", type=int, default=5000, help="0 leaves this part out")
    parser.add_argument("--watch", type=int, default=50, help="streams that are watched through the API")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--typed", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.typed:
        asyncio.run(_typed(args.typed, args.streams))
        return 0
    limit = 120 + args.seconds * 3 + args.silent / 10
    report = run(measure(args.streams, args.rate, args.seconds, args.silent, args.watch), seconds=limit)
    report.show(as_json=args.json)
    return 0 if all(figure.met is not False for figure in report.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
