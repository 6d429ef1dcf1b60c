"""`make soak`: 2,000 jobs in five minutes while workers are killed and frozen and Redis dies; then the books.

Not a test: it prints what it counted and exits 1 when a promise was broken. Only its own processes are signalled.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random  # noqa: TID251  seeded, so that a run can be repeated
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from processes import Processes  # noqa: E402
from promise_checks import check_books, submit  # noqa: E402

from worker.clock import Clock  # noqa: E402
from worker.jobs.errors import StoreUnavailable  # noqa: E402
from worker.jobs.record import Job  # noqa: E402
from worker.store.jobs.repository import Jobs  # noqa: E402

PROMPTS = (
    "[[sim: normal tokens=80 rate=40]] go",
    "[[sim: check_then_clear hold=6]] go",
    "[[sim: check_then_block hold=3]] go",
    "[[sim: cut how=rst after=6 tokens=40]] go",
    "[[sim: overloaded retry_after=1]] go",
    "[[sim: refusal]] go",
)


class Soak:
    """One run: feeds, hurts, waits, counts."""

    def __init__(self, stage: Processes, jobs: int, seconds: float, rng: random.Random) -> None:
        self.stage, self.wanted, self.seconds, self.rng = stage, jobs, seconds, rng
        self.accepted: list[str] = []
        self.faults: Counter[str] = Counter()
        self.workers: list[asyncio.subprocess.Process] = []

    async def feed(self) -> None:
        """Submits evenly over the time, again after each refusal."""
        began = time.monotonic()
        for number in range(self.wanted):
            due = began + self.seconds * number / self.wanted
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            while True:
                try:
                    self.accepted.append(await submit(self.stage.redis, self.rng.choice(PROMPTS)))
                    break
                except StoreUnavailable:
                    self.faults["submits refused while Redis was away"] += 1
                    await asyncio.sleep(0.1)

    async def hurt(self) -> None:
        """A fault every few seconds until cancelled."""
        while True:
            await asyncio.sleep(self.rng.uniform(3, 8))
            fault = self.rng.choice(["kill", "kill", "freeze", "leave", "redis"])
            self.faults[fault] += 1
            if fault == "redis" and self.stage.valkey.pid is not None:
                os.kill(self.stage.valkey.pid, signal.SIGKILL)
                await self.stage.valkey.stop()
                await self.stage.valkey.start()
                continue
            victim = self.workers.pop(self.rng.randrange(len(self.workers)))
            if fault == "kill":
                await self.stage.kill(victim)
            elif fault == "leave":
                await self.stage.term(victim)
            else:
                victim.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.stage.lease * 1.5)
                victim.send_signal(signal.SIGCONT)
                self.workers.append(victim)
                continue
            self.workers.append(await self.stage.worker())

    async def settled(self, seconds: float) -> bool:
        """True once every accepted job is terminal."""
        jobs, end, left = Jobs(self.stage.redis, Clock()), time.monotonic() + seconds, list(self.accepted)
        while left and time.monotonic() < end:
            rows = [await jobs.load(job_id) for job_id in left]
            left = [job_id for job_id, row in zip(left, rows, strict=True) if row is None or not row.job.settled]
            await asyncio.sleep(0.5)
        return not left

    async def run(self) -> list[Job]:
        """Everything; the settled records. AssertionError names the promise that was broken."""
        self.workers = [await self.stage.worker() for _ in range(3)]
        hurting = asyncio.create_task(self.hurt())
        await self.feed()
        hurting.cancel()
        await asyncio.gather(hurting, return_exceptions=True)
        for worker in self.workers:
            if worker.returncode is None:
                worker.send_signal(signal.SIGCONT)
        self.workers.append(await self.stage.worker())
        assert await self.settled(90), "accepted jobs that never settled"
        return await check_books(self.stage.redis, self.accepted)


async def main(count: int, seconds: float, seed: int) -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory() as folder:
        async with Processes(Path(folder), speed=2, lease=2) as stage:
            soak = Soak(stage, count, seconds, random.Random(seed))
            found = await soak.run()
            calls = stage.sim.calls()
            attempts = sum(len(job.attempts) for job in found)
            print(f"seed {seed}: accepted {len(soak.accepted)}, settled {len(found)}")
            print("faults:", dict(soak.faults))
            print("ends:", dict(Counter(job.status.value for job in found)))
            print("outcomes:", dict(Counter(a.outcome.value for job in found for a in job.attempts if a.outcome)))
            print(f"attempts {attempts}, creates upstream {calls['creates']}, resumes {calls['resumes']}")
            print(f"tokens billed {calls['tokens_billed']}")
            return 0 if calls["creates"] <= attempts else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.jobs, given.seconds, given.seed)))
