"""Does one app's backlog make another one wait? App B's jobs alone, then behind 10,000 queued jobs of app A.

    python ops/bench/fairness.py [--backlog 10000] [--rounds 6] [--slots 4] [--json]

A fleet of `slots` over a real Valkey as Vigil ships it (flushed before each answer), through the worker's own claims
and commits; a job takes its slot for 40 to 60 ms in place of a model's minutes. B submits 10 at once. Its wait is the
time until an answer is there: alone its own jobs stand in its way, behind A every second turn is A's, so twice as long
is what fair turns give; first come, first served would give minutes. Also told: the wait for the start, and A's share.
A slot is left for a third app (VIGIL_APP_SLOT_SHARE), whether B is alone or behind A.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter

from report import Deployment, Figure, Report, percentile, run

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.jobs import events as ev
from worker.jobs.states import Outcome, Purpose
from worker.settings import Settings
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import AppLimits, ClaimedJob, NewJob

MODEL = "gpt-5.6-sol"
AGREED = 2.0
_SHARE = Settings.model_fields["app_slot_share"].default
_JOBS = 10
_SHORTEST, _SPREAD = 0.040, 0.020
_SUBMITS_AT_ONCE = 200


class Fleet:
    """Slots that claim, hold a job for a while, settle it, and claim again."""

    def __init__(self, jobs: Jobs, clock: Clock, slots: int) -> None:
        self._jobs, self._clock, self._slots = jobs, clock, slots
        self.submitted: dict[str, float] = {}
        self.started: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.took, self._held = Counter[str](), Counter[str]()
        self._wake = asyncio.Event()

    async def submit(self, app: str, count: int) -> list[str]:
        """`count` jobs of the app, all at once."""
        fact = ev.Queued(app=app, key_id="key_bench", requested_model=MODEL)

        async def one() -> str:
            began = time.perf_counter()
            stored, _ = await self._jobs.submit(NewJob(fact, {"metadata": {}}, {"input": "x" * 500}))
            self.submitted[stored.job.id] = began
            return stored.job.id

        names: list[str] = []
        for start in range(0, count, _SUBMITS_AT_ONCE):
            names += await asyncio.gather(*(one() for _ in range(min(_SUBMITS_AT_ONCE, count - start))))
        self._wake.set()
        return names

    async def work(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            running = set[asyncio.Task[None]]()
            while True:
                self._wake.clear()
                room = self._slots - len(running)
                limits = AppLimits(share=_SHARE, held=+self._held)
                held = (await self._jobs.claim("fleet", room, 60.0, limits=limits))[1] if room else []
                for job in held:
                    self._held[job.job.app] += 1
                    task = group.create_task(self._run(job))
                    running.add(task)
                    task.add_done_callback(running.discard)
                    task.add_done_callback(lambda _, app=job.job.app: self._held.subtract([app]))
                    task.add_done_callback(lambda _: self._wake.set())
                await self._wake.wait()

    async def _run(self, held: ClaimedJob) -> None:
        name = held.job.id
        self.started[name] = time.perf_counter()
        self.took[held.job.app] += 1
        drafts = [
            (ev.Started(worker="fleet", generation=held.generation), None),
            (ev.AttemptStarted(model=MODEL, purpose=Purpose.ORIGINAL, mode="stream", client_request_id=name), 1),
            (ev.AttemptFinished(outcome=Outcome.COMPLETED, served_model=MODEL), 1),
            (ev.Completed(served_model=MODEL), 1),
        ]
        job = await self._jobs.change(name, lambda _: drafts[:2], job=held.job, token=held.token)
        await asyncio.sleep(_SHORTEST + _SPREAD * self._clock.random())
        await self._jobs.change(name, lambda _: drafts[2:], job=job, token=held.token)
        self.done[name] = time.perf_counter()

    async def waits(self, rounds: int) -> tuple[list[float], list[float]]:
        """(until the answer, until the start) of B's jobs over some rounds, in milliseconds."""
        names: list[str] = []
        for _ in range(rounds):
            names += await self.submit("b", _JOBS)
            while not all(name in self.done for name in names):  # noqa: ASYNC110  nothing to wait for but time
                await asyncio.sleep(0.002)
        until = ([(when[n] - self.submitted[n]) * 1000 for n in names] for when in (self.done, self.started))
        answered, begun = until
        return answered, begun


async def measure(given: argparse.Namespace) -> Report:
    """Both rounds on one server, B alone first."""
    report = Report("fairness")
    async with Deployment() as deployment:
        server: EmbeddedValkey = await deployment.valkey("valkey")
        redis, clock = connect(server.url), Clock()
        fleet = Fleet(Jobs(redis, clock), clock, given.slots)
        working = asyncio.create_task(fleet.work())
        try:
            await fleet.waits(1)  # warm
            alone = await fleet.waits(given.rounds)
            began = time.perf_counter()
            backlog = asyncio.create_task(fleet.submit("a", given.backlog))
            await asyncio.wait({backlog, working}, return_when=asyncio.FIRST_COMPLETED)
            report.lines.append(f"{given.backlog} jobs of A queued in {time.perf_counter() - began:.1f} s")
            fleet.took.clear()
            behind = await fleet.waits(given.rounds)
            took = dict(fleet.took)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await redis.aclose()
    rows = []
    for name, one, other in zip(("answer", "start"), alone, behind, strict=True):
        rows += [(f"until the {name}, ms", percentile(one, 0.5), percentile(one, 0.95), "alone")]
        rows += [(f"until the {name}, ms", percentile(other, 0.5), percentile(other, 0.95), "behind A")]
    report.table(("B's wait", "p50", "p95", ""), rows)
    report.lines.append(f"slots given while both had jobs in line: {took}")
    ratio = percentile(behind[0], 0.95) / percentile(alone[0], 0.95)
    name = f"B's p95 wait behind {given.backlog} of A / alone"
    report.figures.append(Figure.at_most(name, ratio, AGREED, "times"))
    return report


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    run(measure(given), seconds=80).show(as_json=given.json)


if __name__ == "__main__":
    main()
