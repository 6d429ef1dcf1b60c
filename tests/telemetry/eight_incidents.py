"""Makes eight incidents happen to real workers, and says what a person on call sees of each in Sentry.

`async for seen in incidents(folder, ingest): …` yields one `Seen` after another. A provider that fails to answer is a
closed port, Redis away is a server that was stopped, a dead receiver answers 500; nothing is emitted by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from in_process import Stage, until
from ingest import Ingest, Receiver
from processes import free_port
from thorough import cases

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.jobs import events as ev
from worker.jobs.spec import Policy
from worker.main import WorkerProcess
from worker.store import keys
from worker.store.apps import Apps
from worker.store.connection import store_watch
from worker.store.connection.pool import connect
from worker.store.jobs.stored_job import NewJob
from worker.telemetry.report_budget import INTERVALS_S

SECRET = "CANARY-7f1c"
OUTAGE = cases(60, 10_000)
CHECKED = "[[sim: check_then_clear hold=1 tokens=2]]"
ONCE = {"max_attempts": 1}


@dataclass
class Seen:
    """What arrived of one incident: the events while it lasts, and those that the budget allows an hour later."""

    incident: str
    first: list[dict[str, Any]]
    later: list[dict[str, Any]]

    @property
    def issues(self) -> list[tuple[str, str]]:
        """(level, title) of each issue, as Sentry's list shows them."""
        found = {tuple(one["fingerprint"]): (one["level"], _title(one)) for one in (*self.first, *self.later)}
        return list(found.values())

    @property
    def occurrences(self) -> int:
        return sum(one["contexts"]["incident"]["count"] for one in (*self.first, *self.later))


def _title(event: dict[str, Any]) -> str:
    if "exception" in event:
        return f"{event['exception']['values'][-1]['type']} in {event['tags']['at'].partition(':')[0]}"
    return str(event["logentry"]["message"])


class Scene:
    """Two workers that report to a Sentry, on a Valkey of their own."""

    def __init__(self, stage: Stage, valkey: EmbeddedValkey, ingest: Ingest, receiver: Receiver) -> None:
        self.stage, self.valkey, self.ingest, self.receiver = stage, valkey, ingest, receiver
        self.workers: list[WorkerProcess] = []

    async def submit(self, text: str, count: int, **policy: Any) -> list[str]:
        one = lambda n: self.stage.submit(f"{text} {SECRET} {n}", policy=policy)  # noqa: E731
        parts = [range(at, min(count, at + 16)) for at in range(0, count, 16)]  # no more at a time: they share a pool
        return [job_id for part in parts for job_id in await _all(one, part)]

    async def run(self, text: str, count: int, **policy: Any) -> None:
        for job_id in await self.submit(text, count, **policy):
            await self.stage.settled(job_id, 600)

    async def reported(self) -> None:
        """All that may be reported now has arrived."""
        await self.workers[0].components.incident_reporter.report()
        await asyncio.to_thread(sentry_sdk.flush, 5)

    async def an_hour_passes(self) -> None:
        """The next report of each incident is due."""
        for field, value in (await self.stage.redis.hgetall(keys.INCIDENTS)).items():
            if field.startswith(b"t:"):
                number, due, last = map(int, value.split())
                await self.stage.redis.hset(keys.INCIDENTS, field, f"{number} {due - INTERVALS_S[-1] * 1000} {last}")


async def _all(make: Callable[[int], Awaitable[str]], numbers: range) -> list[str]:
    return list(await asyncio.gather(*map(make, numbers)))


async def provider_down(scene: Scene) -> None:
    """Nothing listens where the provider was."""
    stage, own = scene.stage, scene.workers
    for worker in own:
        await stage.stop(worker)
    down = {"OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1"}
    scene.workers = [await stage.worker(**down), await stage.worker(**down)]
    await scene.run("hello", 1, **ONCE)
    await scene.reported()
    await scene.run("hello", OUTAGE - 1, **ONCE)
    await scene.reported()
    for worker in scene.workers:
        await stage.stop(worker)
    scene.workers = [await stage.worker(), await stage.worker()]


async def quota_out(scene: Scene) -> None:
    """The provider refuses everything of the account: its jobs are held, not failed."""
    held = await scene.submit("[[sim: quota times=1]]", 10)

    async def circuit_open() -> bool:
        return bool(await scene.stage.redis.smembers(keys.CIRCUITS))

    await until("the circuit to open", circuit_open)
    for job_id in held:
        job = await scene.stage.job(job_id)
        assert not job.settled
    await scene.workers[0].components.accounts.all[0].circuit.close()
    for job_id in held:
        await scene.stage.settled(job_id)


async def worker_bug(scene: Scene) -> None:
    """A new release breaks in every run."""

    def broken(*_: object) -> None:
        prompt = SECRET
        raise TypeError(f"cannot read {prompt}")

    accesses = [worker.components.accounts.all[0].access for worker in scene.workers]
    for access in accesses:
        access.observe = broken  # type: ignore[method-assign]
    await scene.run("[[sim: normal tokens=2]]", 20)
    for access in accesses:
        del access.observe  # type: ignore[attr-defined]


async def lease_lost(scene: Scene) -> None:
    """Another worker takes jobs that run."""
    ids = await scene.submit("[[sim: normal tokens=400 rate=1]]", 3)
    for job_id in ids:
        await scene.stage.reaches(job_id, "text", lambda j: any(a.first_output_at for a in j.attempts))
        await scene.stage.redis.hset(keys.job(job_id), "tok", "somebody else")

    async def gone() -> bool:
        return not any(worker.runs for worker in scene.workers)

    await until("the runs to let go", gone)
    for job_id in ids:
        await scene.stage.redis.zrem(keys.LEASED, job_id)


async def queue_stuck(scene: Scene) -> None:
    """The workers live and claim nothing."""
    for worker in scene.workers:
        worker.components.claimer.allow_pick_jobs = False
    (job_id,) = await scene.submit("[[sim: normal tokens=2]]", 1)
    created = (await scene.stage.job(job_id)).created_at

    async def old() -> bool:
        return (Clock().now() - created).total_seconds() > 1

    await until("the job to be old", old)
    for worker in scene.workers * 2:
        await worker.components.sweeper.report_stuck_queue()
    for worker in scene.workers:
        worker.components.claimer.allow_pick_jobs = True
        worker.components.claimer.wake()
    await scene.stage.settled(job_id)


async def receiver_dead(scene: Scene) -> None:
    """A receiver of webhooks answers 500 until each message is given up."""
    await Apps(scene.stage.redis, Clock()).create_key("stage", ("submit",))
    fact = ev.Queued(
        app="stage", key_id="k", requested_model="gpt-5.6-sol", webhook_events=("job.completed",), policy=Policy()
    )
    hook = {"url": scene.receiver.url, "payload": "full", "events": ["job.completed"]}
    for _ in range(3):
        await scene.stage.jobs.submit(NewJob(fact, {"metadata": {}, "webhook": hook}, {"input": SECRET}))

    async def given_up() -> bool:
        kept = [await scene.stage.redis.get(name) for name in await scene.stage.redis.keys("vigil:msg:*")]
        return sum(b'"exhausted"' in one for one in kept) == 3

    await until("the messages to be given up", given_up)


async def account_widened(scene: Scene) -> None:
    """Checks meet ordinary requests; beside them blocks, which nobody is woken for."""
    await scene.run(CHECKED, 20)
    await scene.run("[[sim: check_then_block hold=1]]", 5)
    await scene.run("[[sim: block_before_stream]]", 5)
    for worker in scene.workers:
        await worker.components.account_monitor.report_changes()


async def redis_away(scene: Scene) -> None:
    """Redis is stopped while jobs wait."""
    await scene.valkey.stop()

    async def waited() -> bool:
        for worker in scene.workers:
            await worker.components.store_watch.check()
        await asyncio.to_thread(sentry_sdk.flush, 1)
        return any(one["tags"]["vigil.cause"] == "store-away" for one in scene.ingest.events)

    await until("an outage that lasts", waited)


INCIDENTS = {
    "account widened": account_widened,  # first: it takes that most requests were checked
    "provider down": provider_down,
    "quota out": quota_out,
    "worker bug": worker_bug,
    "lease lost": lease_lost,
    "stuck queue": queue_stuck,
    "webhook receiver dead": receiver_dead,
    "Redis away": redis_away,  # last: it does not come back
}


async def incidents(folder: Path, ingest: Ingest, patch: pytest.MonkeyPatch) -> AsyncIterator[Seen]:
    """Make one incident after the other."""
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    redis = connect(valkey.url)
    more = {
        "SENTRY_DSN": ingest.dsn,
        "SENTRY_TRACES_SAMPLE_RATE": 0.0,
        "webhook_allow_private": True,
        "webhook_schedule": (0.01,),
        "stuck_seconds": 1.0,
    }
    with Receiver(status=500) as receiver:
        try:
            async with Stage(redis, valkey.url, speed=100, **more) as stage:
                scene = Scene(stage, valkey, ingest, receiver)
                scene.workers = [await stage.worker(), await stage.worker()]
                for name, happen in INCIDENTS.items():
                    start = len(ingest.events)
                    if happen is redis_away:  # not earlier: a busy machine would have outages of its own
                        patch.setattr(store_watch, "_REPORT_INTERVAL_S", 0.2)
                    await happen(scene)
                    await scene.reported()
                    middle = len(ingest.events)
                    if happen is not redis_away:
                        await scene.an_hour_passes()
                        await scene.reported()
                    yield Seen(name, ingest.events[start:middle], ingest.events[middle:])
        finally:
            await redis.aclose()
            await valkey.stop()
