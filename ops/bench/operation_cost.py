"""What each operation costs the CPUs of the API, of a worker and of Redis: the inputs of `ops/capacity.md`.

    python ops/bench/operation_cost.py [--jobs 300] [--streams 50] [--json]

All are processes of their own over sockets; content is encrypted, each write is flushed. CPU time is that of all
threads of a process, from the kernel; what the processes use while nothing happens is measured first and taken off. A
row is the difference between what a phase used and what is known of its parts: submits while the worker is stopped, the
runs of those jobs, reads, the same jobs with a webhook, streams that nobody watches, streams that each have a watcher.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import signal
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from report import HOST, VIGIL, Deployment, Figure, Line, Report, answers, free_port, get, new_key, post, run
from webhook_attacks import Receiver

from worker.store.connection.pool import Redis, connect

_STAMPING = Path(__file__).resolve().with_name("stamping.py")
_RATE, _SECONDS = 20.0, 10.0  # of each stream
_LINES = 8
_MASTER = base64.urlsafe_b64encode(bytes(range(32))).decode()
_ACCEPTED = 202
_OK = 200
_PROMPT = "check 0 " + "x" * 2000  # 2 kB


class Used(NamedTuple):
    """CPU seconds of the three."""

    api: float
    worker: float
    store: float

    def minus(self, other: Used, times: float = 1.0) -> Used:
        """Return this without `times` the other."""
        return Used(*(a - times * b for a, b in zip(self, other, strict=True)))

    def each(self, count: float) -> Used:
        """Return a share of it."""
        return Used(*(part / count for part in self))


_NOTHING = Used(0.0, 0.0, 0.0)


def _cpu(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


@dataclass
class Stage:
    """What runs, and what it uses in a second of rest."""

    deployment: Deployment
    redis: Redis
    pids: tuple[int, int, int]
    worker: asyncio.subprocess.Process
    port: int
    key: str
    rest: Used = _NOTHING

    def _now(self) -> Used:
        return Used(*map(_cpu, self.pids))

    async def used(self, what: Awaitable[object]) -> Used:
        """Return what the processes used for it, without what they use at rest."""
        before, began = self._now(), monotonic()
        await what
        return self._now().minus(before).minus(self.rest, monotonic() - began)

    async def _answers(self, requests: list[bytes], wanted: int) -> list[dict[str, Any]]:
        found, waiting = list[dict[str, Any]](), list(reversed(requests))

        async def one() -> None:
            line = await Line.open(self.port)
            while waiting:
                status, body = await line.ask(waiting.pop())
                if status != wanted:
                    raise RuntimeError(f"answered {status}: {body[:300]!r}")
                found.append(json.loads(body))
            line.close()

        await asyncio.gather(*(one() for _ in range(_LINES)))
        return found

    async def submit(self, count: int, ids: list[str], prompt: str = _PROMPT, **fields: Any) -> None:
        """Submit jobs, one request for each, and append their ids."""
        body = {"model": "gpt-5.6-sol", "input": prompt, "policy": {"on_delay": {"action": "wait"}}, **fields}
        ids += [job["id"] for job in await self._answers([post("/v1/jobs", body, self.key)] * count, _ACCEPTED)]

    async def read(self, ids: list[str]) -> None:
        """Read each job."""
        await self._answers([get(f"/v1/jobs/{one}", self.key) for one in ids], _OK)

    async def settled(self, count: int) -> None:
        """Wait until so many jobs in all have completed; its own looks are too few to count."""
        end = monotonic() + 120
        while await self.redis.zcard("vigil:idx:bench:status:completed") < count:
            if monotonic() > end:
                raise RuntimeError(f"jobs did not settle\n{self.deployment.logs()}")
            await asyncio.sleep(0.25)

    async def run(self, count: int) -> None:
        """Let the worker go on until so many jobs in all have completed."""
        self.worker.send_signal(signal.SIGCONT)
        await self.settled(count)

    def stop(self) -> None:
        """Freeze the worker, which holds no job."""
        self.worker.send_signal(signal.SIGSTOP)

    async def watch(self, job_id: str) -> None:
        """Read a job's events to the end, as an app does."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(get(f"/v1/jobs/{job_id}/events", self.key))
        async for raw in reader:
            if raw.startswith(b"event: job.completed"):
                break
        writer.close()


async def _start(deployment: Deployment, slots: int, hooks: int) -> Stage:
    feed, port = free_port(), free_port()
    words = ("--port", str(feed), "--rate", str(_RATE), "--seconds", str(_SECONDS))
    await deployment.start(sys.executable, _STAMPING, *words)
    valkey = await deployment.valkey("ours")
    env = {
        "VIGIL_REDIS_URL": valkey.url,
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": f"http://{HOST}:{feed}/v1",
        "VIGIL_ENCRYPTION_KEYS": _MASTER,
        "VIGIL_PROBE_SECONDS": "0",
        "VIGIL_RATE_PER_MINUTE": "0",
        "VIGIL_LOG_FORMAT": "json",
        "VIGIL_APP_SLOT_SHARE": "1",
        "VIGIL_LEASE_SECONDS": "120",
        "VIGIL_WEBHOOK_ALLOW_PRIVATE": "1",
        "VIGIL_WEBHOOK_PORTS": str(hooks),
        "VIGIL_WEBHOOK_RATE": "0",
    }
    key = await new_key(valkey.url, _MASTER)
    api = await deployment.start(VIGIL, "api", "--port", str(port), env=env)
    worker = await deployment.start(VIGIL, "worker", "--max-jobs", str(slots), env=env)
    redis = connect(valkey.url, max_connections=1)

    async def ready() -> bool:
        return bool(await redis.hlen("vigil:workers")) and await answers(port, "/readyz") and await answers(feed, "/x")

    await deployment.until("the API, the worker and the provider", ready)
    if valkey.pid is None:
        raise RuntimeError("no Valkey")
    return Stage(deployment, redis, (api.pid, worker.pid, valkey.pid), worker, port, key)


async def _phases(stage: Stage, jobs: int, streams: int, hooks: Receiver) -> dict[str, Used]:
    """CPU seconds of each operation."""
    ids, done, costs = list[str](), 0, dict[str, Used]()

    async def batch(count: int, **fields: Any) -> tuple[Used, Used]:
        nonlocal done
        stage.stop()
        submitted = await stage.used(stage.submit(count, ids, **fields))
        done += count
        return submitted.each(count), (await stage.used(stage.run(done))).each(count)

    await batch(30)
    stage.rest = (await stage.used(asyncio.sleep(4))).each(4)
    costs["a second of rest"] = stage.rest
    costs["submit"], costs["run"] = await batch(jobs)
    reading = ids[-jobs:]
    costs["read"] = (await stage.used(stage.read(reading))).each(jobs)

    before = len(hooks.times)
    hooked = jobs // 2
    more = await batch(hooked, webhook={"url": f"http://{HOST}:{hooks.port}/x"})
    tail = await stage.used(asyncio.sleep(2))  # the last messages
    messages = max(1, len(hooks.times) - before)
    extra = [one.minus(costs[name]).each(1 / hooked) for one, name in zip(more, ("submit", "run"), strict=True)]
    costs["webhook"] = Used(*map(sum, zip(*extra, tail, strict=True))).each(messages)

    deltas = streams * _RATE * _SECONDS
    for name in ("delta", "watched"):
        first = len(ids)
        submitted = stage.submit(streams, ids, prompt="stream")
        used = [await stage.used(submitted)]
        watching = [asyncio.create_task(stage.watch(one)) for one in ids[first:]] if name != "delta" else []
        done += streams
        used.append(await stage.used(stage.settled(done)))
        await asyncio.gather(*watching)
        total = Used(*(sum(parts) for parts in zip(*used, strict=True)))
        costs[name] = total.minus(costs["submit"], streams).minus(costs["run"], streams).each(deltas)
    return costs


async def measure(jobs: int, streams: int) -> Report:
    """The table."""
    report = Report("operation_cost")
    async with Deployment() as deployment, Receiver() as hooks:
        stage = await _start(deployment, max(200, streams), hooks.port)
        try:
            costs = await _phases(stage, jobs, streams, hooks)
        finally:
            stage.worker.send_signal(signal.SIGCONT)
            await stage.redis.aclose()
    micro = {name: Used(*(max(0.0, part * 1e6) for part in used)) for name, used in costs.items()}
    report.table(("CPU us", "API", "worker", "Redis"), [(name, *used) for name, used in micro.items()])
    report.figures = [
        Figure(f"{name}, {where}", getattr(used, where), "us") for name, used in micro.items() for where in Used._fields
    ]
    return report


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    run(measure(args.jobs, args.streams), seconds=300).show(as_json=args.json)


if __name__ == "__main__":
    main()
