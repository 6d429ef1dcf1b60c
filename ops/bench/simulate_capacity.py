"""A day of many jobs over several partitions, event by event, from the measured costs in `capacity_costs.toml`.

    python ops/bench/simulate_capacity.py [--jobs 1000000] [--partitions 10] [--seed 20] [--write]

What is simulated: jobs come by a daily curve, at random, and in bursts of one app. An app has its share of the jobs
(few have many) and is pinned to one partition. Each API process, worker and store is one core that serves in order of
arrival; a submit, a claim, a settlement, a read, a webhook each take their CPU time of it, more slowly while the deltas
of running streams take theirs. A job that finds no free slot waits in the queue of its partition; workers take from the
partitions in turn. Most jobs stream, some are held by a check for minutes. The same seed gives the same day, on every
machine. `--write` keeps the result and renders `ops/capacity.md`.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import itertools
import json
import math
import random  # noqa: TID251  seeded, so that a day can be repeated
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from capacity_plan import COSTS, DAY_SECONDS, SIMULATED, Costs, cpu_seconds, load, plan, write_page

_MINUTES: Final = DAY_SECONDS // 60
_QUIETEST: Final = 0.05  # of the busiest moment: a night
_SLOWEST: Final = 0.05  # of a core is always left for what is served in order of arrival
_NETWORK_S: Final = 0.0005  # between two processes
_READS_WITHIN_S: Final = 60.0
_SETTLE_SHARE: Final = 0.5  # of a run's CPU that comes after its stream


def digest(costs: Costs) -> str:
    """Return what tells whether a result was simulated from these costs; memory and days do not count."""
    used = {name: costs[name] for name in ("cpu", "traffic", "limits", "spare", "simulated")}
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()[:16]


class Core:
    """One core that serves in order of arrival, beside the deltas of the streams on it."""

    __slots__ = ("_free_at", "_minutes", "busy", "stream_share")

    def __init__(self) -> None:
        self._free_at = 0.0
        self._minutes = [0.0] * (_MINUTES + 1)
        self.busy = 0.0
        self.stream_share = 0.0  # of the core, that the deltas of running streams take

    def serve(self, now: float, cpu: float) -> float:
        """Return when work of `cpu` seconds that arrives now is done."""
        begins = max(now, self._free_at)
        self._free_at = begins + cpu / max(_SLOWEST, 1 - self.stream_share)
        self._count(begins, cpu)
        return self._free_at

    def stream(self, began: float, ended: float, share: float) -> None:
        """Count the deltas of a stream that has ended."""
        self.stream_share -= share
        at = began
        while at < ended:
            until = min(ended, (at // 60 + 1) * 60)
            self._count(at, (until - at) * share)
            at = until

    def _count(self, at: float, cpu: float) -> None:
        self.busy += cpu
        self._minutes[min(_MINUTES, int(at / 60))] += cpu

    @property
    def busiest_minute(self) -> float:
        """Return the share of the core that its busiest minute used; what is after the day does not count."""
        return max(self._minutes[:_MINUTES]) / 60


class Job:
    """One job on its way."""

    __slots__ = ("accepted", "came", "claimed", "partition", "seconds", "streams", "watched", "worker")

    def __init__(self, came: float, partition: int) -> None:
        self.came, self.partition = came, partition
        self.accepted = self.claimed = self.seconds = 0.0
        self.worker = -1
        self.watched = self.streams = False


class Day:
    """The simulated deployment and its day."""

    def __init__(self, costs: Costs, jobs: int, partitions: int, seed: int) -> None:
        self._costs, self._jobs, self._rng = costs, jobs, random.Random(seed)  # noqa: S311  repeatable by design
        self._cpu = {name: {p: us / 1e6 for p, us in row.items()} for name, row in costs["cpu"].items()}
        sized = plan(costs, jobs)
        self._slots = int(costs["limits"]["streams"])
        self.stores = [Core() for _ in range(partitions)]
        self.workers = [Core() for _ in range(sized.workers)]
        self.apis = [Core() for _ in range(sized.apis)]
        self.running = [0] * sized.workers
        self.most_running = [0] * sized.workers
        self._ready = [deque[Job]() for _ in range(partitions)]
        self._turn = 0
        self._events: list[tuple[float, int, int, Job]] = []
        self._numbers = itertools.count()
        self.waited, self.accepted_after = list[float](), list[float]()
        self.of_partition = [0] * partitions
        self.settled, self.running_peak, self.reads, self.webhooks = 0, 0, 0, 0

    # -- what comes

    def _arrivals(self) -> list[float]:
        """Return when each job comes that comes alone: the daily curve, its peak as high as the traffic says."""
        peak, simulated = self._costs["traffic"]["peak"], self._costs["simulated"]
        alone = self._jobs - self._burst_jobs() * simulated["bursts"]
        sharpness = _sharpness(peak)
        times = list[float]()
        while len(times) < alone:
            at = self._rng.random() * DAY_SECONDS
            if self._rng.random() < _curve(at, sharpness):
                times.append(at)
        return times

    def _burst_jobs(self) -> int:
        simulated = self._costs["simulated"]
        return min(int(simulated["burst_jobs"]), self._jobs // 2 // max(1, int(simulated["bursts"])))

    def _feed(self) -> None:
        rng, apps = self._rng, int(self._costs["simulated"]["apps"])
        weights = list(itertools.accumulate(1 / (rank + 10) ** 0.8 for rank in range(apps)))
        home = [rng.randrange(len(self.stores)) for _ in range(apps)]
        for at in self._arrivals():
            self._push(at, 0, Job(at, home[_pick(rng, weights)]))
        for _ in range(int(self._costs["simulated"]["bursts"])):
            at, app = rng.random() * DAY_SECONDS, _pick(rng, weights)
            for number in range(self._burst_jobs()):
                self._push(at + number * 0.002, 0, Job(at + number * 0.002, home[app]))

    # -- what happens

    def _push(self, at: float, step: int, job: Job) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), step, job))

    def run(self) -> dict[str, Any]:
        """Return the figures of the day, once every job has settled."""
        self._feed()
        steps = (self._submit, self._accept, self._start, self._end, self._settle, self._read, self._read_store,
                 self._webhook, self._webhook_store)  # fmt: skip
        while self._events:
            now, _, step, job = heapq.heappop(self._events)
            steps[step](now, job)
        return self._figures()

    def _submit(self, now: float, job: Job) -> None:
        self.of_partition[job.partition] += 1
        api = self.apis[self._rng.randrange(len(self.apis))]
        done = api.serve(now, self._cpu["submit"]["api"])
        stored = done + _NETWORK_S
        self._push(stored, 1, job)

    def _accept(self, now: float, job: Job) -> None:
        job.accepted = self.stores[job.partition].serve(now, self._cpu["submit"]["store"]) + _NETWORK_S
        self.accepted_after.append(job.accepted - job.came)
        self._ready[job.partition].append(job)
        self._claim(job.accepted)

    def _claim(self, now: float) -> None:
        """Give waiting jobs to free slots, partition by partition in turn."""
        waiting = sum(map(len, self._ready))
        while waiting:
            worker = min(range(len(self.workers)), key=self.running.__getitem__)
            if self.running[worker] >= self._slots:
                return
            while not self._ready[self._turn]:
                self._turn = (self._turn + 1) % len(self._ready)
            job = self._ready[self._turn].popleft()
            self._turn = (self._turn + 1) % len(self._ready)
            waiting -= 1
            job.worker = worker
            self.running[worker] += 1
            self.most_running[worker] = max(self.most_running[worker], self.running[worker])
            self.running_peak = max(self.running_peak, sum(self.running))
            run = self._cpu["run"]
            claimed = self.stores[job.partition].serve(now, run["store"] * (1 - _SETTLE_SHARE))
            job.claimed = self.workers[worker].serve(claimed + _NETWORK_S, run["worker"] * (1 - _SETTLE_SHARE))
            self._push(job.claimed, 2, job)

    def _start(self, now: float, job: Job) -> None:
        self.waited.append(now - job.accepted)
        traffic, rng = self._costs["traffic"], self._rng
        deltas = rng.lognormvariate(math.log(traffic["deltas"]) - 0.32, 0.8)  # whose mean is `deltas`
        job.seconds = traffic["opening_seconds"] + deltas / traffic["delta_rate"]
        job.watched = rng.random() < traffic["watched_share"]
        job.streams = True
        if rng.random() < traffic["check_share"]:
            job.streams = False  # the answer comes at once when the check ends
            job.seconds += rng.expovariate(1 / traffic["check_seconds"])
        else:
            for core, share in self._shares(job):
                core.stream_share += share
        self._push(now + job.seconds, 3, job)

    def _shares(self, job: Job) -> list[tuple[Core, float]]:
        cost, rate = self._cpu["watched" if job.watched else "delta"], self._costs["traffic"]["delta_rate"]
        return [
            (self.workers[job.worker], cost["worker"] * rate),
            (self.stores[job.partition], cost["store"] * rate),
            (self.apis[hash(job.came) % len(self.apis)], cost["api"] * rate),
        ]

    def _end(self, now: float, job: Job) -> None:
        if job.streams:
            for core, share in self._shares(job):
                core.stream(now - job.seconds, now, share)
        self._push(self.workers[job.worker].serve(now, self._cpu["run"]["worker"] * _SETTLE_SHARE), 4, job)

    def _settle(self, now: float, job: Job) -> None:
        done = self.stores[job.partition].serve(now, self._cpu["run"]["store"] * _SETTLE_SHARE)
        self.settled += 1
        self.running[job.worker] -= 1
        traffic = self._costs["traffic"]
        for _ in range(_rounded(traffic["reads"], self._rng)):
            self._push(done + self._rng.random() * _READS_WITHIN_S, 5, job)
        for _ in range(_rounded(traffic["webhooks"], self._rng)):
            self._push(done + _NETWORK_S, 7, job)
        self._claim(now)

    def _read(self, now: float, job: Job) -> None:
        self.reads += 1
        api = self.apis[self._rng.randrange(len(self.apis))]
        self._push(api.serve(now, self._cpu["read"]["api"]), 6, job)

    def _read_store(self, now: float, job: Job) -> None:
        self.stores[job.partition].serve(now, self._cpu["read"]["store"])

    def _webhook(self, now: float, job: Job) -> None:
        self.webhooks += 1
        worker = self.workers[self._rng.randrange(len(self.workers))]
        self._push(worker.serve(now, self._cpu["webhook"]["worker"]), 8, job)

    def _webhook_store(self, now: float, job: Job) -> None:
        self.stores[job.partition].serve(now, self._cpu["webhook"]["store"])

    # -- what came of it

    def _figures(self) -> dict[str, Any]:
        groups = {"stores": self.stores, "workers": self.workers, "API processes": self.apis}
        return {
            "costs": digest(self._costs),
            "seed": self._costs["simulated"]["seed"],
            "jobs": self._jobs,
            "settled": self.settled,
            "reads": self.reads,
            "webhooks": self.webhooks,
            "partitions": len(self.stores),
            "workers": len(self.workers),
            "apis": len(self.apis),
            "running_peak": self.running_peak,
            "streams_of_a_worker": max(self.most_running),
            "largest_partition": round(max(self.of_partition) / self._jobs, 4),
            "cores": {name: _use(cores) for name, cores in groups.items()},
            "cpu_seconds": {name: round(sum(core.busy for core in cores), 3) for name, cores in groups.items()},
            "waited_ms": _spread(self.waited),
            "accepted_ms": _spread(self.accepted_after),
        }


def _pick(rng: random.Random, weights: Sequence[float]) -> int:
    return rng.choices(range(len(weights)), cum_weights=weights)[0]


def _rounded(mean: float, rng: random.Random) -> int:
    """Return a whole number whose mean is `mean`."""
    return int(mean) + (rng.random() < mean % 1)


def _curve(at: float, sharpness: float) -> float:
    """Return how busy this moment of the day is, 1 at its peak in the early afternoon."""
    return max(_QUIETEST, ((1 + math.cos(2 * math.pi * (at / DAY_SECONDS - 14 / 24))) / 2) ** sharpness)


def _sharpness(peak: float) -> float:
    """Return the exponent of the curve whose busiest moment is `peak` times its mean."""
    low, high = 0.1, 50.0
    for _ in range(50):
        middle = (low + high) / 2
        mean = sum(_curve(minute * 60, middle) for minute in range(_MINUTES)) / _MINUTES
        low, high = (middle, high) if 1 / mean < peak else (low, middle)
    return high


def _use(cores: Sequence[Core]) -> dict[str, float]:
    shares = [core.busy / DAY_SECONDS for core in cores]
    minute = max(core.busiest_minute for core in cores)
    return {"mean": round(sum(shares) / len(shares), 4), "busiest": round(max(shares), 4), "minute": round(minute, 4)}


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    last = len(ordered) - 1
    places = {"p50": 0.5, "p99": 0.99, "most": 1.0}
    return {name: round(ordered[math.ceil(last * share)] * 1000, 3) for name, share in places.items()}


def simulate(costs: Costs, jobs: int, partitions: int, seed: int) -> dict[str, Any]:
    """Return the figures of a day of `jobs` jobs."""
    return Day({**costs, "simulated": {**costs["simulated"], "seed": seed}}, jobs, partitions, seed).run()


def main() -> None:
    """The command."""
    costs = load(COSTS)
    given = costs["simulated"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=given["jobs"])
    parser.add_argument("--partitions", type=int, default=given["partitions"])
    parser.add_argument("--seed", type=int, default=given["seed"])
    parser.add_argument("--write", action="store_true", help="keep the result and render the page")
    args = parser.parse_args()
    found = simulate(costs, args.jobs, args.partitions, args.seed)
    print(json.dumps(found, indent=2))
    by_formula = {name: args.jobs * cpu_seconds(costs, name) for name in ("store", "worker", "api")}
    print("CPU seconds by formula:", {name: round(value) for name, value in by_formula.items()})
    if args.write:
        SIMULATED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        write_page()


if __name__ == "__main__":
    main()
