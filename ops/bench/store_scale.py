"""Does the store slow down with what it keeps? claim, commit, list, sweep with few and with many settled jobs.

    python ops/bench/store_scale.py [--few 100] [--many 100000] [--rounds 300] [--url redis://…]

Without `--url` an embedded Valkey in a throw-away folder. Settled jobs are made from one job that went through the
real API: its commands are sent again under new ids, in pipelines. The two sizes are measured in turns (few, many, few,
many …, on databases 0 and 1 of one server), so that a busy machine slows both. Prints medians and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from arq.connections import ArqRedis

from worker.audit.chain import GENESIS
from worker.clock import Clock, to_ms
from worker.embedded import EmbeddedValkey
from worker.jobs import events as ev, fold, ids
from worker.jobs.record import Job
from worker.jobs.spec import Policy
from worker.jobs.states import Outcome, Purpose, Status
from worker.store import codec, keys
from worker.store.commands import Command
from worker.store.connection.pool import connect
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import list_jobs
from worker.store.jobs.repository import Jobs, RetentionTimes
from worker.store.jobs.stored_job import NewJob
from worker.store.stats.queue_depth import depths

MODEL = "gpt-5.6-sol"
AGREED = 1.3
_BATCH = 500
_APP = "bench"
_PEOPLE = 10  # end users among whom the settled jobs are spread
_WAITING = 200  # jobs that wait for their time in both databases, so that a sweep has something to step over


def new_job(person: int = 0, *, waits: bool = False) -> NewJob:
    """A job as an app would submit it."""
    fact = ev.Queued(
        app=_APP,
        key_id="key_bench",
        requested_model=MODEL,
        safety_identifier=f"{person:064x}",
        policy=Policy(queue_deadline_seconds=86_400.0),
        not_before=Clock().now() + timedelta(days=1) if waits else None,
    )
    return NewJob(fact, {"metadata": {"ticket": "A-17"}, "end_user": "someone"}, {"input": "x" * 500})


def life(job_id: str, person: int, age_ms: int) -> tuple[Job, list[ev.Event]]:
    """A job that completed, as a worker tells it."""
    at = Clock().now() - timedelta(milliseconds=age_ms)
    begun = ev.AttemptStarted(model=MODEL, purpose=Purpose.ORIGINAL, mode="background", client_request_id=f"{job_id}-1")
    drafts: list[tuple[ev.Fact, int | None]] = [
        (new_job(person).fact, None),
        (ev.Started(worker="bench", generation=1), None),
        (begun, 1),
        (ev.AttemptFinished(outcome=Outcome.COMPLETED, served_model=MODEL), 1),
        (ev.Completed(served_model=MODEL), 1),
    ]
    job: Job | None = None
    trail: list[ev.Event] = []
    for number, (fact, attempt) in enumerate(drafts, 1):
        trail.append(ev.event(number, at, job_id, fact, attempt))
        job = fold.apply(job, trail[-1])
    assert job is not None  # noqa: S101  five facts make a job
    return job, trail


def settled_commands(jobs: Jobs, person: int, age_ms: int) -> list[Command]:
    """What the store writes over the life of a job that completed `age_ms` ago: its own commands, in one go."""
    clock = Clock()
    job_id = ids.new_id("job", to_ms(clock.now()) - age_ms, clock.random_bytes(ids.RANDOM_BYTES))
    job, trail = life(job_id, person, age_ms)
    first = fold.apply(None, trail[0])
    commands, head = jobs.changes.commands(None, first, trail[:1], GENESIS)
    content = [
        ("HSET", keys.job(job_id), "priv", codec.seal(new_job().private)),
        ("SET", keys.job_input(job_id), codec.seal(new_job().input)),
        ("SET", keys.job_output(job_id), codec.seal({"output_text": "y" * 500, "output": [], "refusal": None})),
    ]
    more, _ = jobs.changes.commands(first, job, trail[1:], head)
    return [*commands, *content, *more]


async def fill(redis: ArqRedis, jobs: Jobs, count: int) -> None:
    """`count` settled jobs over the last month, and some that wait."""
    began, base, places = time.perf_counter(), to_ms(Clock().now()), itertools.count()
    for start in range(0, count, _BATCH):
        async with redis.pipeline(transaction=False) as pipe:
            for n in range(start, min(start + _BATCH, count)):
                age = (count - n) * 30 * 86_400_000 // count
                for command in settled_commands(jobs, n % _PEOPLE, age):
                    if command[0] not in {"PUBLISH", "IF"}:  # nobody listens, and no app here has an endpoint
                        if command[0] == "NOTE":  # a pipeline can't note what the server answers: we name the place
                            place = f"{base}-{next(places)}"
                            pipe.rpush(command[1], place)
                            command = tuple(place if word == "*" else word for word in command[2:])  # noqa: PLW2901
                        pipe.execute_command(*command)
            await pipe.execute()
    for n in range(_WAITING):
        await jobs.submit(new_job(n % _PEOPLE, waits=True))
    print(f"  {count:>7} settled jobs stored in {time.perf_counter() - began:.1f} s", flush=True)


class Side:
    """One database and the things measured on it."""

    def __init__(self, redis: ArqRedis) -> None:
        self.redis, self.jobs, self.times = redis, Jobs(redis, Clock(), RetentionTimes()), dict[str, list[float]]()

    async def measure(self, name: str, what: Callable[[], Awaitable[object]]) -> None:
        """Runs it once and notes how long it took."""
        began = time.perf_counter()
        await what()
        self.times.setdefault(name, []).append(time.perf_counter() - began)

    async def round(self) -> None:
        """One job from its submission to its end, then the lists and the sweep."""
        jobs, redis = self.jobs, self.redis
        await self.measure("submit", lambda: jobs.submit(new_job()))
        began = time.perf_counter()
        _, (held,) = await jobs.claim("w1", 1, 15)
        self.times.setdefault("claim", []).append(time.perf_counter() - began)
        token = held.token
        _, trail = life(held.job.id, 0, 0)
        drafts = [(e.fact, e.attempt) for e in trail[1:]]
        job = held.job
        await self.measure("renew", lambda: jobs.renew(15, [(job.id, token)]))

        async def commit() -> None:
            nonlocal job
            job = await jobs.change(job.id, lambda _: drafts[:2], job=job, token=token)

        await self.measure("commit", commit)
        await self.measure("settle", lambda: jobs.change(job.id, lambda _: drafts[2:], job=job, token=token))
        await self.measure("read", lambda: jobs.load(job.id))
        await self.measure("list 20", lambda: list_jobs(redis, _APP, ListFilters(), 20, None))
        completed = ListFilters(statuses=(Status.COMPLETED,))
        await self.measure("list 20 completed", lambda: list_jobs(redis, _APP, completed, 20, None))
        person = ListFilters(safety_identifier=f"{7:064x}")
        await self.measure("list 5 of a person", lambda: list_jobs(redis, _APP, person, 5, None))
        await self.measure("sweep", jobs.overdue)
        await self.measure("depths", lambda: depths(redis, Clock()))


async def bench(url: str, few: int, many: int, rounds: int) -> bool:
    """Prints the table; True when every ratio is as agreed."""
    sides = [Side(connect(f"{url}{'&' if '?' in url else '?'}db={n}")) for n in (0, 1)]
    try:
        for side, count in zip(sides, (few, many), strict=True):
            await side.redis.flushdb()
            await fill(side.redis, side.jobs, count)
        for side in sides:  # scripts loaded, connections warm
            await side.round()
            side.times.clear()
        for n in range(rounds):
            for side in sides if n % 2 == 0 else sides[::-1]:
                await side.round()
        small, large = (side.times for side in sides)
        print(f"\n  median of {rounds}, ms     {few:>8}  {many:>8}   ratio")
        good = True
        for name in small:
            a, b = statistics.median(small[name]), statistics.median(large[name])
            good &= b / a <= AGREED
            print(f"  {name:20} {a * 1000:10.3f} {b * 1000:9.3f} {b / a:7.2f}{'' if b / a <= AGREED else '  over 1.3'}")
        return good
    finally:
        for side in sides:
            await side.redis.aclose()


async def main() -> int:
    """Exit 0 when nothing slows down by more than a third."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--url", help="a Redis whose databases 0 and 1 may be emptied")
    given = parser.parse_args()
    if given.url:
        return 0 if await bench(given.url, given.few, given.many, given.rounds) else 1
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as folder:
        async with EmbeddedValkey(Path(folder)) as server:
            return 0 if await bench(server.url, given.few, given.many, given.rounds) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
