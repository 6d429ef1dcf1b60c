"""When a waiting job starts: from its place, the workers' slots and how long calls took."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, strategies as st

from worker.safety.hold_times import MIN_SAMPLES, bucket_of
from worker.safety.queue_estimate import QueueLoad, estimate_start

SMALL = st.integers(0, 1000)
LOADS = st.builds(QueueLoad, slots=SMALL, running=SMALL, waiting=SMALL, apps=SMALL, app_limit=SMALL, app_running=SMALL)
CALLS = st.dictionaries(st.integers(0, 100), st.integers(0, 100), max_size=6)
TEN = {bucket_of(10): 20}


@given(st.integers(1, 1000), LOADS, CALLS)
def test_an_estimate_is_in_order_and_says_from_how_much(position, load, calls):
    found = estimate_start(position, load, calls)
    if found is None:
        assert load.slots == 0 or sum(calls.values()) < MIN_SAMPLES
        return
    assert 0 <= found.p50_seconds <= found.p90_seconds
    assert found.samples == sum(calls.values())


@given(st.integers(1, 500), st.integers(0, 500), LOADS, CALLS, st.integers(0, 100))
def test_who_stands_further_back_waits_no_shorter_and_more_slots_make_it_no_longer(position, back, load, calls, slots):
    found, behind = estimate_start(position, load, calls), estimate_start(position + back, load, calls)
    assume(found is not None and behind is not None)
    assert behind.p50_seconds >= found.p50_seconds
    faster = estimate_start(position, replace(load, slots=load.slots + slots), calls)
    assert faster.p50_seconds <= found.p50_seconds


@pytest.mark.parametrize(
    ("position", "load", "seconds"),
    [
        (1, QueueLoad(4, 2, 1, 1), 0),  # a slot is free
        (1, QueueLoad(4, 4, 1, 1), 2.5),
        (8, QueueLoad(4, 4, 8, 1), 20),
        (8, QueueLoad(4, 4, 16, 2), 40),  # two apps take turns
        (8, QueueLoad(4, 4, 9, 2), 22.5),  # the other one has a single job
        (8, QueueLoad(100, 2, 8, 1, app_limit=2, app_running=2), 40),  # the app's own limit
    ],
)
def test_the_middle_is_the_calls_before_over_the_slots(position, load, seconds):
    assert estimate_start(position, load, TEN).p50_seconds == pytest.approx(seconds, rel=0.1)
