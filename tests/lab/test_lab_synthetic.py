"""Made-up jobs: the same seed, the same jobs; the shares that the table promises; fast enough."""

from __future__ import annotations

import sys
import time

import pytest
from lab_cases import CATALOGUE, LUNA, SOL

from worker.jobs.states import RetryModelState
from worker.lab import evaluate, synthetic
from worker.lab.model import ACTIONS, SILENCE, THRESHOLDS


def test_the_same_seed_gives_the_same_jobs_and_another_one_others():
    assert synthetic.draw(300, 1, SOL, LUNA) == synthetic.draw(300, 1, SOL, LUNA)
    assert synthetic.draw(300, 1, SOL, LUNA).cases != synthetic.draw(300, 2, SOL, LUNA).cases


def test_more_jobs_begin_with_the_same_ones():
    assert synthetic.draw(300, 1, SOL, LUNA).cases[:100] == synthetic.draw(100, 1, SOL, LUNA).cases


def test_the_shares_are_those_of_the_table():
    cases = synthetic.draw(10_000, 5, SOL, LUNA).cases
    checked = [c for c in cases if c.holds]
    assert 0.23 < len(checked) / 10_000 < 0.27
    assert 0.10 < sum(c.blocked for c in checked) / len(checked) < 0.14
    assert sum(c.blocked for c in cases if not c.holds) / (10_000 - len(checked)) < 0.02
    assert 0.07 < sum(len(c.holds) == 2 for c in checked) / len(checked) < 0.11
    states = [c.holds[0].retry_model_state for c in checked]
    assert 0.57 < states.count(RetryModelState.NAMED) / len(states) < 0.63
    assert 0.08 < states.count(RetryModelState.NONE) / len(states) < 0.12


def test_every_job_is_possible():
    for case in synthetic.draw(2000, 9, SOL, LUNA).cases:
        assert case.end > 0
        assert case.faster_seconds > 0
        assert case.output_tokens >= 0
        assert 0 <= case.acceptance_draw < 1
        for hold in case.holds:
            assert 0 <= hold.start < hold.end <= case.end
        for start, end in case.silences:
            assert 0 <= start < end <= case.end


def test_without_a_faster_model_nobody_names_one():
    cases = synthetic.draw(500, 1, LUNA, None).cases
    assert {h.retry_model for c in cases for h in c.holds} == {None}


def test_the_delayed_model_is_the_first_checked_one_with_a_faster_one():
    assert synthetic.delayed_model(CATALOGUE) == SOL


def test_ten_thousand_jobs_and_25_policies_take_less_than_ten_seconds():
    if sys.gettrace() is not None:
        pytest.skip("a tracer measures itself")
    begun = time.process_time()
    cases = synthetic.draw(10_000, 1, SOL, LUNA).cases
    assert len(evaluate.grid(cases, CATALOGUE, ACTIONS, THRESHOLDS, SILENCE)) == 25
    assert time.process_time() - begun < 10
