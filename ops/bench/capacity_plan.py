"""What to buy for how many jobs a day: the table of `ops/capacity.md`, by formula from `capacity_costs.toml`.

    python ops/bench/capacity_plan.py [--jobs 1000000] [--write]

Pure arithmetic: nothing is measured here. `--write` renders the generated parts of the page anew. Every number follows
from a row of the costs and a formula below, whose words are on the page.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COSTS, SIMULATED, PAGE = HERE / "capacity_costs.toml", HERE / "capacity_simulated.json", HERE.parent / "capacity.md"
JOBS_A_DAY = (1_000, 100_000, 10_000_000)
DAY_SECONDS = 86_400
_KB_IN_GB = 1e6
_SMALLEST_GB = 1.0
PROCESSES = ("api", "worker", "store")
Costs = Mapping[str, Mapping[str, Any]]


def load(path: Path = COSTS) -> Costs:
    """Return the costs."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def cpu_seconds(costs: Costs, process: str) -> float:
    """Return the CPU seconds that one job costs the process `api`, `worker` or `store`, reads and webhooks included."""
    cpu, traffic = costs["cpu"], costs["traffic"]
    watched = traffic["watched_share"]
    delta = (1 - watched) * cpu["delta"][process] + watched * cpu["watched"][process]
    once = cpu["submit"][process] + cpu["run"][process]
    more = traffic["reads"] * cpu["read"][process] + traffic["webhooks"] * cpu["webhook"][process]
    return float(once + more + traffic["deltas"] * delta) / 1e6


def streaming_seconds(costs: Costs) -> float:
    """Return for how long a job streams."""
    traffic = costs["traffic"]
    return float(traffic["opening_seconds"] + traffic["deltas"] / traffic["delta_rate"])


@dataclass(frozen=True)
class Plan:
    """What a deployment needs at so many jobs a day: processes of one core each, and gigabytes of all together."""

    jobs: int
    peak_per_second: float
    partitions: int
    workers: int
    apis: int
    cores: int
    streams: int  # that run at once at the peak
    held: int  # of the jobs that run, those that a check holds
    redis_gb: float  # used memory of all partitions
    redis_bought_gb: float  # with what is kept free
    process_gb: float  # workers and API processes
    disk_gb: float
    archive_gb: float  # in the object store, once the oldest is as old as it may be


def plan(costs: Costs, jobs: int) -> Plan:
    """Return what `jobs` a day need."""
    traffic, limits, memory, stored, days = (costs[name] for name in ("traffic", "limits", "memory", "stored", "days"))
    peak = jobs / DAY_SECONDS * traffic["peak"]
    streams, held = peak * streaming_seconds(costs), peak * traffic["check_share"] * traffic["check_seconds"]
    cores = {name: peak * cpu_seconds(costs, name) / limits["core"] for name in PROCESSES}
    kept = jobs * (days["result"] * stored["record"] + days["trail"] * stored["trail"])
    redis_gb = (kept + (streams + held) * stored["queued"]) / _KB_IN_GB
    spare = costs["spare"] if jobs >= costs["spare"]["from_jobs"] else {"worker": 0, "api": 0}
    partitions = max(1, math.ceil(cores["store"]), math.ceil(redis_gb / limits["partition_gigabytes"]))
    workers = max(1, math.ceil(max(cores["worker"], (streams + held) / limits["streams"]))) + spare["worker"]
    apis = max(1, math.ceil(cores["api"])) + spare["api"]
    redis_gb += partitions * memory["store_process"] / _KB_IN_GB
    running = streams * memory["stream"] + held * memory["silent"]
    archived = costs["archived"]
    each = archived["trail"] + archived["output_share"] * archived["output"]
    return Plan(
        jobs, peak, partitions, workers, apis, partitions + workers + apis, round(streams), round(held), redis_gb,
        redis_gb / limits["memory"], ((workers + apis) * memory["process"] + running) / _KB_IN_GB,
        redis_gb * stored["log_factor"], jobs * days["archive"] * each / _KB_IN_GB,
    )  # fmt: skip


def _gb(value: float) -> str:
    if value < _SMALLEST_GB:
        return f"{max(1, math.ceil(value * 1000)):,} MB"
    return f"{math.ceil(value):,} GB" if value < 10_000 else f"{math.ceil(value / 1000):,} TB"  # noqa: PLR2004


def plan_table(costs: Costs) -> str:
    """Return the table of what to buy."""
    plans = [plan(costs, jobs) for jobs in JOBS_A_DAY]
    smaller = [plan({**costs, "stored": {**costs["stored"], **costs["compact"]}}, jobs) for jobs in JOBS_A_DAY]
    rows = {
        "jobs a second at the peak": [f"{one.peak_per_second:.3g}" for one in plans],
        "streams at once · jobs in a check": [f"{one.streams:,} · {one.held:,}" for one in plans],
        "partitions (a core each)": [f"{one.partitions:,}" for one in plans],
        "workers (a core each)": [f"{one.workers:,}" for one in plans],
        "API processes (a core each)": [f"{one.apis:,}" for one in plans],
        "**cores**": [f"**{one.cores:,}**" for one in plans],
        "memory used by Redis, all partitions": [_gb(one.redis_gb) for one in plans],
        "**memory to buy for Redis**": [f"**{_gb(one.redis_bought_gb)}**" for one in plans],
        "· with `VIGIL_COMPACT_RECORDS=1` (partitions)": [
            f"{_gb(one.redis_bought_gb)} ({one.partitions:,})" for one in smaller
        ],
        "**memory of workers and APIs**": [f"**{_gb(one.process_gb)}**" for one in plans],
        "disk of the append-only files": [_gb(one.disk_gb) for one in plans],
        "**object store** after 400 days": [f"**{_gb(one.archive_gb)}**" for one in plans],
    }
    head = " | ".join(f"{jobs:,}" for jobs in JOBS_A_DAY)
    lines = [f"| jobs a day | {head} |", "|---|" + "---|" * len(plans)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def cost_table(costs: Costs) -> str:
    """Return the table of what an operation costs, and a whole job."""
    rows = [
        f"| {name} | {' | '.join(f'{one[process]:,.0f}' for process in PROCESSES)} |"
        for name, one in costs["cpu"].items()
    ]
    job = " | ".join(f"**{cpu_seconds(costs, p) * 1e6:,.0f}**" for p in PROCESSES)
    rate = " | ".join(f"{1 / cpu_seconds(costs, p):,.0f}" for p in PROCESSES)
    head = ["| µs of CPU | API | worker | Redis |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, f"| **a job, all of it** | {job} |", f"| jobs a second of a full core | {rate} |"])


def simulated_table(found: Mapping[str, Any]) -> str:
    """Return the table of a simulated day."""
    waits, accepted, cores = found["waited_ms"], found["accepted_ms"], found["cores"]
    first = (
        f"{found['jobs']:,} jobs, {found['partitions']} partitions, {found['workers']} workers, {found['apis']} API "
        f"processes, seed {found['seed']}; at most {found['running_peak']:,} jobs ran at once."
    )
    head = ["| | mean use of a core | of the busiest one | its busiest minute |", "|---|---|---|---|"]
    rows = [
        f"| {name} | {one['mean']:.0%} | {one['busiest']:.0%} | {one['minute']:.0%} |" for name, one in cores.items()
    ]
    last = (
        f"Waited from the 202 to the claim: p50 {waits['p50']:,.1f} ms, p99 {waits['p99']:,.1f} ms, at most "
        f"{waits['most']:,.0f} ms. From the request to its 202: p50 {accepted['p50']:,.1f} ms, p99 "
        f"{accepted['p99']:,.1f} ms.\nThe biggest partition had {found['largest_partition']:.1%} of the jobs; a worker "
        f"had at most {found['streams_of_a_worker']:,} jobs at once."
    )
    return "\n".join([first, "", *head, *rows, "", last])


def memory_line(costs: Costs, found: Mapping[str, Any]) -> str:
    """Return what the simulated day takes of memory."""
    days, stored, memory = costs["days"], costs["stored"], costs["memory"]
    each = days["result"] * stored["record"] + days["trail"] * stored["trail"]
    largest = found["jobs"] * found["largest_partition"] * each / _KB_IN_GB
    worker = (memory["process"] + found["streams_of_a_worker"] * memory["stream"]) / _KB_IN_GB
    return (
        f"After {days['result']:.0f} such days the biggest partition uses {largest:.1f} GB, all of them "
        f"{found['jobs'] * each / _KB_IN_GB:.0f} GB; a worker {worker:.2f} GB at most."
    )


def rendered(page: str, costs: Costs, found: Mapping[str, Any]) -> str:
    """Return the page with its generated parts made anew."""
    simulated = f"{simulated_table(found)}\n{memory_line(costs, found)}"
    for name, text in (("plan", plan_table(costs)), ("costs", cost_table(costs)), ("simulated", simulated)):
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, found_begin, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise ValueError(f"{PAGE.name} has no part {name}")
        page = f"{before}{begin}{text}{end}{after}"
    return page


def write_page() -> None:
    """Render the generated parts of the page anew."""
    found = json.loads(SIMULATED.read_text(encoding="utf-8"))
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8"), load(), found), encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, help="so many jobs a day instead of the three of the page")
    parser.add_argument("--write", action="store_true", help="render the page anew")
    args = parser.parse_args()
    costs = load()
    if args.write:
        write_page()
    elif args.jobs:
        print(plan(costs, args.jobs))
    else:
        print(plan_table(costs), cost_table(costs), sep="\n\n")


if __name__ == "__main__":
    main()
