"""`make soak`: half an hour of jobs while processes of two releases, Redis and the archive die; then the books.

    python tests/chaos/soak.py [--seconds 1800] [--jobs 9000] [--seed 1]

Jobs come through the APIs with an idempotency key each, and again with the same key until one says 202. At the end:
what was accepted has settled, once; the provider was called at most once for each attempt, and for each but those that
died before their call; the audit trail verifies; no prompt, key or password is in a log or on Redis's disk.
Not a test: it prints what it counted and exits 1 when a promise was broken. Only its own processes are signalled.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random  # noqa: TID251  seeded, so that a run can be repeated
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from archive_outages import archive  # noqa: E402
from canaries import canary, found  # noqa: E402
from guarded_store import GuardedStore  # noqa: E402
from next_release import make_next_release  # noqa: E402
from processes import Processes, free_port  # noqa: E402
from promise_checks import check_books  # noqa: E402
from soak_faults import Fleet  # noqa: E402

from worker.clock import Clock  # noqa: E402
from worker.jobs.record import Job  # noqa: E402
from worker.jobs.states import Outcome  # noqa: E402
from worker.store import keys  # noqa: E402
from worker.store.apps import SCOPES, Apps  # noqa: E402
from worker.store.connection.pool import connect  # noqa: E402
from worker.store.envelope import MasterKeyring  # noqa: E402
from worker.store.jobs.repository import Jobs  # noqa: E402

SCENARIOS = (
    "normal tokens=80 rate=40",
    "check_then_clear hold=6",
    "check_then_block hold=3",
    "cut how=rst after=6 tokens=40",
    "overloaded retry_after=1",
    "refusal",
)
_MASTER, _AUDIT = bytes(range(7, 39)), bytes(range(60, 92))
_PROVIDER_KEY = "sk-soak-0a9b8c7d6e5f4a3b2c1d"
_UNCALLED = {Outcome.LOST, Outcome.INTERRUPTED}
_SETTLING_S = 300.0


def _key(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


class SoakStage(Processes):
    """The processes of the soak, on a Redis with users, with encrypted content."""

    def __init__(self, folder: Path, archive_settings: Mapping[str, str]) -> None:
        settings = {
            "VIGIL_ENCRYPTION_KEYS": _key(_MASTER),
            "VIGIL_AUDIT_KEY": _key(_AUDIT),
            "VIGIL_AUDIT_SEAL_SECONDS": "1",
            "VIGIL_RATE_PER_MINUTE": "0",
            "VIGIL_QUARANTINE_BLOCKS": "0",
            "VIGIL_DRAIN_SECONDS": "10",
            "OPENAI_API_KEY": _PROVIDER_KEY,
            **archive_settings,
        }
        super().__init__(folder, speed=2, lease=2, **settings)
        self.store = self.valkey = GuardedStore(folder / "redis", free_port())  # type: ignore[assignment]
        self._settings["VIGIL_REDIS_URL"] = self.store.url
        self.redis = connect(self.store.admin_url, keyring=MasterKeyring([_MASTER]))


class Soak:
    """One run: feeds, hurts, waits, counts."""

    def __init__(self, stage: SoakStage, fleet: Fleet, jobs: int, seconds: float, rng: random.Random) -> None:
        self._stage, self._fleet, self._wanted, self._seconds, self._rng = stage, fleet, jobs, seconds, rng
        self.accepted: list[str] = []
        self.refused: Counter[str] = Counter()
        self.secrets = {
            "prompt": canary("prompt"),
            "metadata": canary("metadata"),
            "encryption key": _key(_MASTER),
            "audit key": _key(_AUDIT),
            "provider's key": _PROVIDER_KEY,
            **stage.store.passwords,
        }

    async def feed(self, token: str) -> None:
        """Submit evenly over the time, each again until it is accepted."""
        began = time.monotonic()
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=15) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._wanted):
                await asyncio.sleep(max(0.0, began + self._seconds * number / self._wanted - time.monotonic()))
                group.create_task(self._submit(client, number, self._rng.choice(SCENARIOS)))

    async def _submit(self, client: httpx2.AsyncClient, number: int, scenario: str) -> None:
        job = {
            "model": "gpt-5.6-sol",
            "input": f"[[sim: {scenario}]] {self.secrets['prompt']}",
            "metadata": {"note": self.secrets["metadata"]},
        }
        for again in range(10_000):
            url = self._fleet.urls[(number + again) % 2]
            try:
                answer = await client.post(f"{url}/v1/jobs", json=job, headers={"Idempotency-Key": f"soak-{number}"})
            except httpx2.HTTPError as error:
                self.refused[f"submits that met {type(error).__name__}"] += 1
            else:
                if answer.status_code in {200, 202}:
                    self.accepted.append(answer.json()["id"])
                    return
                assert answer.status_code >= 500, answer.text
                self.refused[f"submits answered with {answer.status_code}"] += 1
            await asyncio.sleep(0.2)

    async def settled(self) -> list[str]:
        """Return the accepted jobs that have not settled after a long wait."""
        jobs, end, left = Jobs(self._stage.redis, Clock()), time.monotonic() + _SETTLING_S, list(self.accepted)
        while left and time.monotonic() < end:
            rows = [await jobs.load(job_id) for job_id in left]
            left = [job_id for job_id, row in zip(left, rows, strict=True) if row is None or not row.job.settled]
            await asyncio.sleep(0.5)
        return left

    def leaks(self) -> list[str]:
        """Return where a prompt, a key or a password is that must not be there."""
        files = [*self._stage.folder.glob("*.log"), *self._stage.store.files()]
        return [leak for file in files for leak in found({file.name: file.read_bytes()}, self.secrets, {})]


def books(jobs: list[Job], soak: Soak, fleet: Fleet, calls: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the table of what was counted, and the promises that were broken."""
    attempts = [attempt for job in jobs for attempt in job.attempts]
    uncalled = sum(attempt.outcome in _UNCALLED and attempt.response_id is None for attempt in attempts)
    rows: list[tuple[str, object]] = [
        ("accepted", len(soak.accepted)),
        ("settled", len(jobs)),
        ("attempts", len(attempts)),
        ("creates at the provider", calls["creates"]),
        ("attempts that died around their call", uncalled),
        ("resumes at the provider", calls["resumes"]),
        *sorted((f"tokens billed: {name}", count) for name, count in calls["tokens_billed"].items()),
        *sorted(Counter(f"end: {job.status.value}" for job in jobs).items()),
        *sorted(Counter(f"outcome: {a.outcome.value}" for a in attempts if a.outcome).items()),
        *sorted((f"fault: {name}", count) for name, count in fleet.happened.items()),
        *sorted((f"started: {name}", count) for name, count in fleet.started.items()),
        *sorted(soak.refused.items()),
    ]
    broken = []
    if len(set(soak.accepted)) != len(soak.accepted):
        broken.append("two idempotency keys have one job")
    if not len(attempts) - uncalled <= calls["creates"] <= len(attempts):
        broken.append("creates and attempts differ by more than attempts that died around their call")
    return [f"{name:<48} {count:>9}" for name, count in rows], broken


async def main(count: int, seconds: float, seed: int) -> int:
    """Return the exit code."""
    rng = random.Random(seed)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        door = await stack.enter_async_context(archive())
        stage = await stack.enter_async_context(SoakStage(folder, door.environment if door else {}))
        _, token, secret = await Apps(stage.redis, Clock()).create_key("soak", SCOPES)
        fleet = Fleet(stage, stage.store, door, str(make_next_release(folder / "next")), rng)
        soak = Soak(stage, fleet, count, seconds, rng)
        soak.secrets |= {"API key": token, "webhook secret": secret}
        await fleet.start(3)
        hurting = asyncio.create_task(fleet.hurt(3, 8))
        await soak.feed(token)
        hurting.cancel()
        await asyncio.gather(hurting, return_exceptions=True)
        await fleet.recovered()
        left = await soak.settled()
        broken = [f"{len(left)} accepted jobs never settled, such as {left[:3]}"] if left else []
        await fleet.leave()
        verified = await stage.start("audit", "verify")
        if await verified.wait():
            broken.append("the audit trail does not verify; see below")
        table: list[str] = []
        if not left:
            jobs = await check_books(stage.redis, soak.accepted, whole_trail=door is None)
            table, more = books(jobs, soak, fleet, stage.sim.calls())
            broken += more
        records = await stage.redis.xlen(keys.AUDIT)
        broken += [f"leaked: {leak}" for leak in soak.leaks()]
        print(f"seed {seed}, {seconds:g} s, archive: {'S3' if door else 'none in this release'}")
        print("\n".join([*table, f"{'audit records in Redis':<48} {records:>9}"]))
        print("\n".join(f"BROKEN: {one}" for one in broken) or "nothing lost, nothing twice, nothing leaked")
        if broken:
            print(stage.logs()[-5000:])
        return 1 if broken else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=9000)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.jobs, given.seconds, given.seed)))
