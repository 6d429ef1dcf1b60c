"""What a settled job keeps in Redis: bytes by kind of key, and the whole difference of Redis' memory per job.

    python ops/bench/memory_per_job.py [--jobs 200] [--env VIGIL_COMPACT_RECORDS=1] [--json]

A real Valkey, API, worker and simulator. Small jobs are submitted over HTTP and settle, twice on servers of their own:
with a prompt of 2 kB, and with one word. Then every key is asked for its `MEMORY USAGE` and counted with its kind
(`keys.kind_of`). What is there once for the deployment (scripts, streams' first node, counters) is measured after some
warming jobs and subtracted. Jobs have master keys, metadata and an end user, as those of a deployment in earnest.
`--settle SECONDS` waits so long after the last end, for what workers do with settled jobs beside their work.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic

from report import HOST, VIGIL, Deployment, Figure, Line, Report, answers, free_port, get, new_key, post, run

from worker.store import keys
from worker.store.connection.pool import Redis, connect

_WARM = 20
_PEOPLE = 10
_AT_ONCE = 8
_PROMPTS = {"2 kB prompt": "x" * 2000, "one word": "hello"}
_BATCH = 500


@dataclass
class Footprint:
    """What Redis holds at one moment."""

    used: int
    by_kind: Counter[str] = field(default_factory=Counter)
    count: Counter[str] = field(default_factory=Counter)

    def since(self, before: Footprint, jobs: int) -> tuple[float, dict[str, float], dict[str, float]]:
        """Return (bytes, bytes by kind, keys by kind) that were added per job."""
        kinds = {*self.by_kind, *before.by_kind}
        by_kind = {kind: (self.by_kind[kind] - before.by_kind[kind]) / jobs for kind in kinds}
        return (
            (self.used - before.used) / jobs,
            by_kind,
            {kind: (self.count[kind] - before.count[kind]) / jobs for kind in kinds},
        )


async def footprint(redis: Redis) -> Footprint:
    """Ask for the memory of all keys; `used` is measured first, so that asking does not count."""
    info = await redis.info("memory")
    found = Footprint(int(info["used_memory"]) - int(info.get("mem_clients_normal", 0)) - int(info["mem_aof_buffer"]))
    names = [name async for name in redis.scan_iter(count=_BATCH)]
    for start in range(0, len(names), _BATCH):
        async with redis.pipeline(transaction=False) as pipe:
            for name in names[start : start + _BATCH]:
                pipe.memory_usage(name, samples=0)
            sizes = await pipe.execute()
        for name, size in zip(names[start : start + _BATCH], sizes, strict=True):
            kind = keys.kind_of(name.decode(errors="replace"))
            found.by_kind[kind] += size or 0
            found.count[kind] += 1
    return found


class Store:
    """One deployment with one Valkey."""

    def __init__(self, deployment: Deployment, redis: Redis, port: int, key: str) -> None:
        self._deployment, self.redis, self.port, self.key = deployment, redis, port, key
        self._done = 0

    @classmethod
    async def start(cls, deployment: Deployment, name: str, settings: dict[str, str]) -> Store:
        """Start Valkey, simulator, API and worker."""
        valkey, port, sim = await deployment.valkey(name), free_port(), free_port()
        env = {
            "VIGIL_REDIS_URL": valkey.url,
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": f"http://{HOST}:{sim}/v1",
            "VIGIL_PROBE_SECONDS": "0",
            "VIGIL_APP_SLOT_SHARE": "1",  # one app has all slots
            "VIGIL_ENCRYPTION_KEYS": base64.urlsafe_b64encode(bytes(range(32))).decode(),
            **settings,
        }
        key = await new_key(valkey.url, env["VIGIL_ENCRYPTION_KEYS"])
        await deployment.start(VIGIL, "simulator", "--port", str(sim), "--speed", "100", env=env)
        await deployment.start(VIGIL, "api", "--port", str(port), env=env)
        await deployment.start(VIGIL, "worker", env=env)
        redis = connect(valkey.url)

        async def ready() -> bool:
            return bool(await redis.hlen(keys.WORKERS)) and await answers(port, "/readyz")

        await deployment.until("the API and the worker", ready)
        return cls(deployment, redis, port, key)

    async def settle(self, jobs: int, prompt: str) -> None:
        """Submit so many jobs, a few at a time, and return once all have completed."""
        numbers = iter(range(self._done, self._done + jobs))

        async def submit() -> None:
            line = await Line.open(self.port)
            for n in numbers:
                body = {
                    "model": "gpt-5.6-sol",
                    "input": f"[[sim: normal tokens=20]] {prompt}",
                    "metadata": {"ticket": f"A-{n}", "team": f"{n % _PEOPLE}"},
                    "end_user": f"person-{n % _PEOPLE}",
                }
                status, answer = await line.ask(post("/v1/jobs", body, self.key))
                if status >= 300:  # noqa: PLR2004
                    raise RuntimeError(f"{status} {answer[:300]!r}")
                job_id = json.loads(answer)["id"]
                while json.loads((await line.ask(get(f"/v1/jobs/{job_id}?wait=30", self.key)))[1])["status"] in (
                    "queued",
                    "running",
                    "scheduled",
                ):
                    pass
            line.close()

        await asyncio.gather(*(submit() for _ in range(_AT_ONCE)))
        self._done += jobs
        completed, end = keys.index("bench", "status", "completed"), monotonic() + 60
        while await self.redis.zcard(completed) < self._done:
            if monotonic() > end:
                raise RuntimeError(f"jobs did not complete\n{self._deployment.logs()}")
            await asyncio.sleep(0.05)


async def quiet(redis: Redis, seconds: float) -> None:
    """Wait until arq's own leftovers of the runs are gone and `seconds` have passed."""
    await asyncio.sleep(seconds)
    async for name in redis.scan_iter(match="arq:*", count=_BATCH):
        await redis.delete(name)  # they expire within a minute or so


async def measure(jobs: int, settings: dict[str, str], settle: float) -> Report:
    """Both prompts, each on servers of its own."""
    report = Report("memory_per_job")
    for title, prompt in _PROMPTS.items():
        async with Deployment() as deployment:
            store = await Store.start(deployment, title.replace(" ", "-"), settings)
            await store.settle(_WARM, prompt)
            await quiet(store.redis, settle)
            before = await footprint(store.redis)
            await store.settle(jobs, prompt)
            await quiet(store.redis, settle)
            used, by_kind, count = (await footprint(store.redis)).since(before, jobs)
            await store.redis.aclose()
        rows = [
            (kind, by_kind[kind], count[kind])
            for kind in sorted(by_kind, key=lambda kind: -by_kind[kind])
            if abs(by_kind[kind]) >= 0.5  # noqa: PLR2004  bytes
        ]
        report.lines.append("")
        report.table(
            (title, "bytes/job", "keys/job"), [*rows, ("all keys", sum(by_kind.values()), sum(count.values()))]
        )
        report.figures += [
            Figure(f"used_memory per job, {title}", used, "bytes"),
            Figure(
                f"audit trail (records and their ids), {title}",
                by_kind.get("audit", 0) + by_kind.get("audited", 0),
                "bytes",
            ),
        ]
    return report


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.startswith("VIGIL_"):
        raise argparse.ArgumentTypeError("VIGIL_NAME=value")
    return name, value


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="of each kind")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds to wait after the last end")
    parser.add_argument("--env", type=_setting, action="append", default=[], help="a setting of API and worker")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    seconds = 120 + args.jobs + 4 * args.settle
    run(measure(args.jobs, dict(args.env), args.settle), seconds=seconds).show(as_json=args.json)


if __name__ == "__main__":
    main()
