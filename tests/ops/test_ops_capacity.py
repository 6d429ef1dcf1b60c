"""The page of capacity says what its costs give: its tables are recomputed, and its simulated day belongs to them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "ops" / "bench"))

import capacity_plan  # noqa: E402
import simulate_capacity  # noqa: E402

COSTS = capacity_plan.load()
SIMULATED = json.loads(capacity_plan.SIMULATED.read_text())
SMALL, PARTITIONS = 3_000, 3


def test_the_tables_of_the_page_follow_from_the_costs():
    page = capacity_plan.PAGE.read_text()
    assert capacity_plan.rendered(page, COSTS, SIMULATED) == page, "run ops/bench/capacity_plan.py --write"


def test_the_simulated_day_is_that_of_these_costs():
    assert SIMULATED["costs"] == simulate_capacity.digest(COSTS), "run ops/bench/simulate_capacity.py --write"
    assert SIMULATED["jobs"] == SIMULATED["settled"] == 1_000_000
    assert SIMULATED["partitions"] == 10


@pytest.mark.parametrize(("section", "name"), [("stored", "record"), ("memory", "stream"), ("archived", "trail")])
def test_a_newer_measurement_changes_the_page(section, name):
    page = capacity_plan.PAGE.read_text()
    newer = {**COSTS, section: {**COSTS[section], name: COSTS[section][name] * 3}}
    assert capacity_plan.rendered(page, newer, SIMULATED) != page
    assert simulate_capacity.digest(newer) == SIMULATED["costs"], "memory and bytes need no new simulation"


def test_no_core_of_a_plan_is_fuller_than_planned():
    limit = COSTS["limits"]["core"]
    for jobs in (1, 1_000, 50_000, 100_000, 3_000_000, 10_000_000):
        one = capacity_plan.plan(COSTS, jobs)
        counts = {"store": one.partitions, "worker": one.workers, "api": one.apis}
        for process, count in counts.items():
            assert one.peak_per_second * capacity_plan.cpu_seconds(COSTS, process) / count <= limit
        assert one.streams + one.held <= one.workers * COSTS["limits"]["streams"]
        assert one.cores == sum(counts.values())


def test_more_jobs_never_need_less():
    plans = [capacity_plan.plan(COSTS, jobs) for jobs in (1, 10, 1_000, 20_000, 100_000, 1_000_000, 10_000_000)]
    for less, more in itertools.pairwise(plans):
        pairs = zip(dataclasses.astuple(less), dataclasses.astuple(more), strict=True)
        assert all(a <= b for a, b in pairs), (less, more)


def test_the_same_seed_is_the_same_day_and_every_job_ends():
    one = simulate_capacity.simulate(COSTS, SMALL, PARTITIONS, seed=1)
    assert one == simulate_capacity.simulate(COSTS, SMALL, PARTITIONS, seed=1)
    assert one != simulate_capacity.simulate(COSTS, SMALL, PARTITIONS, seed=2)
    assert one["settled"] == SMALL
    assert one["webhooks"] == SMALL * COSTS["traffic"]["webhooks"]
    for process, group in (("store", "stores"), ("worker", "workers"), ("api", "API processes")):
        expected = SMALL * capacity_plan.cpu_seconds(COSTS, process)
        assert one["cpu_seconds"][group] == pytest.approx(expected, rel=0.1), "the day costs what its jobs cost"


def test_too_few_slots_make_jobs_wait():
    few = {**COSTS, "limits": {**COSTS["limits"], "streams": 2}, "spare": {**COSTS["spare"], "from_jobs": 1e9}}
    few["limits"]["core"] = 1.0
    narrow = simulate_capacity.Day(few, SMALL, PARTITIONS, 1)
    narrow.workers, narrow.running, narrow.most_running = narrow.workers[:1], [0], [0]
    crowded, roomy = narrow.run(), simulate_capacity.simulate(COSTS, SMALL, PARTITIONS, seed=1)
    assert crowded["settled"] == SMALL
    assert crowded["streams_of_a_worker"] == 2
    assert crowded["waited_ms"]["p50"] > 1000 * roomy["waited_ms"]["p50"]
