"""Does the store slow down with what it keeps? claim, commit, list, search, bulk actions, reports, sweep with few and
with many settled jobs.

    python ops/bench/store_scale.py [--few 1000] [--many 100000] [--rounds 300] [--url redis://…]

Without `--url` an embedded Valkey in a throw-away folder. Settled jobs are written by the script and with the commands
of commits. The two sizes are measured in turns (few, many, few, many …, on databases 0 and 1 of one server), so that a
busy machine slows both. Prints medians and their ratio.
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

from api.jobs.bulk_actions import ActionRequest, run_actions
from api.runtime.context import build_context
from api.schema.requests import JobActionsRequest, JobFilter
from worker.audit.chain import GENESIS
from worker.clock import Clock, to_ms
from worker.embedded import EmbeddedValkey
from worker.jobs import events as ev, fold, ids
from worker.jobs.record import Job
from worker.jobs.spec import Policy
from worker.jobs.states import Outcome, Purpose, Status
from worker.safety.messages import job_error
from worker.safety.report_weeks import weeks_between
from worker.settings import Settings
from worker.store import codec, keys
from worker.store.admission.rate_limit import RateLimit, RateMeter
from worker.store.apps import ApiKey
from worker.store.commands import Command, flatten
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets
from worker.store.connection.lua_scripts import RUN_COMMANDS, script
from worker.store.connection.pool import connect
from worker.store.connection.script_batch import ScriptBatch
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import count_jobs, list_jobs
from worker.store.jobs.repository import Jobs, RetentionTimes
from worker.store.jobs.search_terms import first_terms, terms_command
from worker.store.jobs.stored_job import NewJob
from worker.store.stats.loss_report import LossQuery, LossReport
from worker.store.stats.queue_depth import depths

MODEL = "gpt-5.6-sol"
AGREED = 1.3
_BATCH = 500
_APP = "bench"
_PEOPLE = 10  # end users among whom the settled jobs are spread
_TEAMS = 10  # in the metadata of the settled jobs
TEAMS_FAILED = ListFilters(statuses=("failed",), metadata=(("team", "3"),))
SEARCHES = {
    "search a ticket": ListFilters(metadata=(("ticket", "A-70"),)),
    "search a team": ListFilters(metadata=(("team", "3"),)),
    "search a code": ListFilters(code="server_error"),
    "search two statuses": ListFilters(statuses=("failed", "completed")),
    "search team and code": ListFilters(metadata=(("team", "3"),), code="server_error"),
    "search three filters": ListFilters(served_model=MODEL, metadata=(("team", "3"),), safety_identifier=f"{7:064x}"),
    "search, never fits": ListFilters(statuses=("completed",), code="server_error"),
}
BOUNDED = {"search, never fits": 0.05, "count, two filters": 0.1}
"""What reads up to a bound, which few jobs do not reach: seconds that it may take."""
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


def life(job_id: str, person: int, age_ms: int, *, fails: bool = False) -> tuple[Job, list[ev.Event]]:
    """A job that completed or failed, as a worker tells it."""
    at = Clock().now() - timedelta(milliseconds=age_ms)
    begun = ev.AttemptStarted(model=MODEL, purpose=Purpose.ORIGINAL, mode="background", client_request_id=f"{job_id}-1")
    drafts: list[tuple[ev.Fact, int | None]] = [
        (new_job(person).fact, None),
        (ev.Started(worker="bench", generation=1), None),
        (begun, 1),
        (ev.AttemptFinished(outcome=Outcome.COMPLETED, served_model=MODEL), 1),
        (ev.Completed(served_model=MODEL), 1),
    ]
    if fails:
        error = job_error("server_error")
        drafts[3:] = [
            (ev.AttemptFinished(outcome=Outcome.SERVER_ERROR, error=error), 1),
            (ev.Failed(error=error), None),
        ]
    job: Job | None = None
    trail: list[ev.Event] = []
    for number, (fact, attempt) in enumerate(drafts, 1):
        trail.append(ev.event(number, at, job_id, fact, attempt))
        job = fold.apply(job, trail[-1])
    assert job is not None  # noqa: S101  five facts make a job
    return job, trail


def settled_commands(jobs: Jobs, secret: bytes, n: int, age_ms: int) -> list[Command]:
    """What the store writes over the life of a job that ended `age_ms` ago: its own commands, in one go.

    One in twenty has failed. Each has a ticket of its own, and a team among ten.
    """
    clock = Clock()
    job_id = ids.new_id("job", to_ms(clock.now()) - age_ms, clock.random_bytes(ids.RANDOM_BYTES))
    job, trail = life(job_id, n % _PEOPLE, age_ms, fails=n % 20 == 0)
    private = {**new_job().private, "metadata": {"ticket": f"A-{n}", "team": f"{n // 20 % _TEAMS}"}}
    first = fold.apply(None, trail[0])
    commands, head = jobs.changes.commands(None, first, trail[:1], GENESIS)
    content: list[Command] = [
        terms_command(first, first_terms(secret, first, private["metadata"])),
        ("HSET", keys.job(job_id), "priv", codec.seal(private)),
        ("SET", keys.job_input(job_id), codec.seal(new_job().input)),
        ("SET", keys.job_output(job_id), codec.seal({"output_text": "y" * 500, "output": [], "refusal": None})),
    ]
    more, _ = jobs.changes.commands(first, job, trail[1:], head)
    return [*commands, *content, *more]


async def fill(redis: ArqRedis, jobs: Jobs, count: int) -> None:
    """`count` settled jobs over the last month, and some that wait."""
    began, secret = time.perf_counter(), await KeptSecrets(redis, Clock()).get(DIGEST)
    commit = ScriptBatch(redis, script(redis, "admission/quarantine_of", *RUN_COMMANDS, "jobs/commit"))

    async def store(n: int) -> None:
        commands = settled_commands(jobs, secret, n, (count - n) * 30 * 86_400_000 // count)
        job_key = str(commands[0][1]).replace(keys.chain_records(""), keys.job(""))
        await commit(keys=[job_key, keys.QUARANTINE], args=["0", "", f"{n}", "", "", *flatten(commands)])

    for start in range(0, count, _BATCH):
        await asyncio.gather(*map(store, range(start, min(start + _BATCH, count))))
    for n in range(_WAITING):
        await jobs.submit(new_job(n % _PEOPLE, waits=True))
    print(f"  {count:>7} settled jobs stored in {time.perf_counter() - began:.1f} s", flush=True)


class Side:
    """One database and the things measured on it."""

    def __init__(self, redis: ArqRedis) -> None:
        self.redis, self.jobs, self.times = redis, Jobs(redis, Clock(), RetentionTimes()), dict[str, list[float]]()
        self.report = LossReport(redis)
        self._context, self._teams = (
            build_context(Settings(_env_file=None), redis, Clock()),
            itertools.cycle(range(_TEAMS)),
        )

    async def act(self, request: JobActionsRequest) -> None:
        """An action on many jobs, as the API carries it out."""
        key = ApiKey("key_bench", _APP, ("submit", "read"), 0, "0000")
        caller = ActionRequest(key, RateMeter(RateLimit(0)), "http://bench", {})
        found = await run_actions(self._context, caller, request)
        assert len(found["data"]) == request.limit, found  # noqa: S101  else it measures nothing

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
        for name, filters in SEARCHES.items():
            await self.measure(name, lambda filters=filters: list_jobs(redis, _APP, filters, 5, None))  # type: ignore[misc]
        await self.measure("count, two filters", lambda: count_jobs(redis, _APP, TEAMS_FAILED))
        wanted = JobFilter(status=("completed",), metadata={"team": str(next(self._teams))})
        for action in ("cancel", "delete_content"):
            request = JobActionsRequest(action=action, filter=wanted, limit=5)
            await self.measure(f"{action} 5 of a team", lambda request=request: self.act(request))  # type: ignore[misc]
        weeks = weeks_between(Clock().now().date(), None, None)
        await self.measure("report", lambda: self.report.read(LossQuery(weeks, _APP)))
        people = LossQuery(weeks, _APP, ("end_user",))
        await self.measure("report by end user", lambda: self.report.read(people))
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
        print(f"\n  median of {rounds}, ms           {few:>8}  {many:>8}   ratio")
        good = True
        for name in small:
            a, b = statistics.median(small[name]), statistics.median(large[name])
            is_good = b <= BOUNDED[name] if name in BOUNDED else b / a <= AGREED
            good &= is_good
            note = (
                ("  bounded" if is_good else "  over its bound") if name in BOUNDED else "" if is_good else "  over 1.3"
            )
            print(f"  {name:26} {a * 1000:10.3f} {b * 1000:9.3f} {b / a:7.2f}{note}")
        return good
    finally:
        for side in sides:
            await side.redis.aclose()


async def main() -> int:
    """Exit 0 when nothing slows down by more than a third."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=1000)
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
