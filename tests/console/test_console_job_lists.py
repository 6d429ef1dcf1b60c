"""Open lists of jobs are read at a pace that their number sets, and at once after an action."""

from __future__ import annotations

import pytest

from api.runtime.job_lists import JobLists
from worker.clock import Clock

ROUND_TRIPS = 2


class SetClock(Clock):
    """A clock that stands until it is moved."""

    at = 0.0

    def monotonic(self) -> float:
        return self.at


@pytest.mark.parametrize("number", [1, 2, 5, 20])
def test_all_lists_together_cost_less_than_a_read_a_second(number):
    lists = JobLists(SetClock())
    for _ in range(2):
        paces = [lists.use("acme", str(n))[1] for n in range(number)]
    assert sum(ROUND_TRIPS / pace for pace in paces) < 1


def test_no_list_waits_longer_than_a_minute():
    lists = JobLists(SetClock())
    assert max(lists.use("acme", str(n))[1] for n in range(3_000)) == 60


def test_lists_that_nobody_looks_at_do_not_slow_the_others():
    clock = SetClock()
    lists = JobLists(clock)
    for n in range(10):
        lists.use("acme", str(n))
    clock.at = 100.0
    assert lists.use("acme", "")[1] == 4


def test_an_action_makes_the_apps_lists_others_and_no_other_apps():
    lists = JobLists(SetClock())
    acme, other = lists.use("acme", "")[0], lists.use("umbrella", "")[0]
    lists.forget("acme")
    assert lists.use("acme", "")[0] != acme
    assert lists.use("umbrella", "")[0] == other
