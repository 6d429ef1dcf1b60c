"""1, 2 and 4 worker processes on one Redis: jobs a second, and what a job costs Redis.

    python ops/bench/workers.py [--jobs 300] [--slots 20] [--json]

Two questions, each with every number of workers. *Bound by slots*: a job waits a second upstream and a worker has
`--slots` slots, so twice the workers should do twice the jobs. *Bound by the machine*: jobs that end at once, slots
enough; here a machine with few CPUs says how far its CPUs go, not how far Redis does. Redis's own share of the second
run (its CPU seconds, commands and bytes) tells where one Redis would end. Jobs are submitted before workers start.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from report import HOST, VIGIL, Deployment, Figure, Report, answers, free_port, run

from worker.clock import Clock
from worker.jobs.events import Queued
from worker.store.connection.pool import Redis, connect
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob

_STAMPING = Path(__file__).resolve().with_name("stamping.py")
_WORKERS = (1, 2, 4)
_INPUT = "x" * 2000
_LINEAR = 0.8


@dataclass
class Meter:
    """What Redis says of itself."""

    commands: int
    cpu: float
    bytes_in: int
    bytes_out: int
    aof: int
    memory: int


async def _read(redis: Redis) -> Meter:
    info = await redis.info("all")
    stats = sum(row["calls"] for name, row in info.items() if name.startswith("cmdstat_"))
    cpu = info["used_cpu_sys"] + info["used_cpu_user"]
    return Meter(
        stats,
        cpu,
        info["total_net_input_bytes"],
        info["total_net_output_bytes"],
        info["aof_current_size"],
        info["used_memory"],
    )


@dataclass
class Run:
    """One number of workers, one kind of job."""

    rate: float
    before: Meter
    after: Meter
    jobs: int
    seconds: float


async def _drain(deployment: Deployment, name: str, prompt: str, jobs: int, workers: int, slots: int, feed: int) -> Run:
    valkey = await deployment.valkey(name)
    redis = connect(valkey.url)
    env = {
        "VIGIL_REDIS_URL": valkey.url,
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": f"http://{HOST}:{feed}/v1",
        "VIGIL_PROBE_SECONDS": "0",
        "VIGIL_LEASE_SECONDS": "30",
        "VIGIL_APP_SLOT_SHARE": "1",  # one app has all slots
        "VIGIL_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(range(32))).decode(),
    }
    running = [await deployment.start(VIGIL, "worker", "--max-jobs", str(slots), env=env) for _ in range(workers)]

    async def beating() -> bool:
        return bool(await redis.hlen("vigil:workers") == workers)

    await deployment.until("the workers", beating)
    store = Jobs(redis, Clock())
    before = await _read(redis)
    began = monotonic()
    ids = [
        (await store.submit(NewJob(Queued(app="bench", key_id="k", requested_model="gpt-5.6-sol"), {},
                                   {"input": f"{prompt} {_INPUT}"})))[0].job.id
        for _ in range(jobs)
    ]  # fmt: skip
    while await redis.zcard("vigil:idx:bench:status:completed") < jobs:
        if monotonic() - began > 60 + jobs:
            raise RuntimeError(f"the jobs did not settle\n{deployment.logs()}")
        await asyncio.sleep(0.05)
    seconds = monotonic() - began
    after = await _read(redis)
    for job_id in ids[:: max(1, jobs // 20)]:
        stored = await store.load(job_id)
        if stored is None or len(stored.job.attempts) != 1:
            raise RuntimeError(f"{job_id} was not done once")
    for process in running:
        process.terminate()
    for process in running:
        await process.wait()
    await redis.aclose()
    return Run(jobs / seconds, before, after, jobs, seconds)


async def measure(jobs: int, slots: int) -> Report:
    """Both questions for each number of workers."""
    report = Report("workers")
    slow: dict[int, Run] = {}
    quick: dict[int, Run] = {}
    for workers in _WORKERS:
        for kind, prompt, count, room, found in (
            ("slots", "check 1", slots * workers * 6, slots, slow),
            ("machine", "check 0", jobs, 200, quick),
        ):
            async with Deployment() as deployment:
                feed = free_port()
                await deployment.start(sys.executable, _STAMPING, "--port", str(feed))
                await deployment.until("the provider", lambda port=feed: answers(port, "/x"))  # type: ignore[misc]
                found[workers] = await _drain(deployment, kind, prompt, count, workers, room, feed)
    rows = [
        (f"{n} worker{'s' * (n > 1)}", slow[n].rate, slow[n].rate / slow[1].rate, quick[n].rate,
         100 * (quick[n].after.cpu - quick[n].before.cpu) / quick[n].seconds)
        for n in _WORKERS
    ]  # fmt: skip
    report.table(("", f"jobs/s, {slots} slots of 1 s each", "x", "jobs/s, machine", "Redis % of a core"), rows)
    one = quick[1]

    def each(name: str) -> float:
        return float(getattr(one.after, name) - getattr(one.before, name)) / one.jobs

    report.lines.append(
        f"a job of {len(_INPUT)} bytes: {each('commands'):.0f} commands, {each('bytes_in') / 1000:.1f} kB to Redis, "
        f"{each('bytes_out') / 1000:.1f} kB from it, {each('aof') / 1000:.1f} kB of append-only file, "
        f"{each('memory') / 1000:.1f} kB kept, {each('cpu') * 1e6:.0f} us of Redis's CPU"
    )
    report.figures = [
        Figure.at_least("2 workers / 1, bound by slots", slow[2].rate / slow[1].rate, 2 * _LINEAR, "times"),
        Figure.at_least("4 workers / 1, bound by slots", slow[4].rate / slow[1].rate, 4 * _LINEAR, "times"),
        Figure("jobs/s, one worker, jobs that end at once", one.rate, "jobs/s"),
        Figure("jobs/s that one Redis core could carry", 1e6 / (each("cpu") * 1e6), "jobs/s"),
        Figure("kept in Redis per job", each("memory") / 1000, "kB"),
    ]
    return report


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=600, help="jobs that end at once, for each number of workers")
    parser.add_argument("--slots", type=int, default=20, help="of each worker, where slots are the bound")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    run(measure(args.jobs, args.slots), seconds=300 + args.jobs / 4).show(as_json=args.json)


if __name__ == "__main__":
    main()
