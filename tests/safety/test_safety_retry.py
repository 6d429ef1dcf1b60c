"""When the same model is asked again: the formula's bounds and the rules that forbid it."""

import math

import pytest
from hypothesis import given, settings, strategies as st

from worker.jobs.errors import Failure
from worker.jobs.states import Outcome
from worker.safety.retry import CAP, GiveUp, RetryAt, counted, decide, delay, hold_delay

JITTER = st.floats(0, 1, exclude_max=True)
AGAIN = Failure(Outcome.OVERLOADED, "overloaded", "provider", retryable=True)


def ask(failure=AGAIN, so_far=1, most=5, *, seen=False, jitter=0.5, now=100.0, deadline=None, **more):
    return decide(so_far, most, failure, seen, jitter, now, deadline, **more)


@given(st.integers(1, 10_000), JITTER)
@settings(max_examples=80)
def test_the_backoff_stays_between_half_and_all_of_the_doubled_base(so_far, jitter):
    full = min(CAP, 2.0 ** min(so_far - 1, 100))
    assert full / 2 <= delay(so_far, jitter) <= full


@given(st.integers(1, 50), JITTER, st.floats(0, 1e9))
@settings(max_examples=80)
def test_the_providers_wait_is_never_cut_short_and_has_no_ceiling(so_far, jitter, retry_after):
    seconds = delay(so_far, jitter, retry_after)
    assert seconds >= retry_after
    assert seconds <= max(CAP, retry_after * 1.1 + 1e-6)


@given(st.integers(1, 50), JITTER)
@settings(max_examples=40)
def test_with_the_same_jitter_a_later_attempt_never_waits_less(so_far, jitter):
    assert delay(so_far + 1, jitter) >= delay(so_far, jitter)


@pytest.mark.parametrize("retry_after", [-1.0, math.nan])
def test_a_wait_that_makes_no_sense_counts_as_not_said(retry_after):
    assert delay(1, 0.0, retry_after) == delay(1, 0.0)


def test_a_retry_says_in_how_many_seconds_and_when():
    assert ask(jitter=0.0) == RetryAt(0.5, 100.5)


@pytest.mark.parametrize(
    ("decision", "reason"),
    [
        (ask(Failure(Outcome.BLOCKED, "cyber_policy", "caller")), "not_retryable"),
        (ask(Failure(Outcome.QUOTA_EXHAUSTED, "quota_exhausted", "account", scope="account")), "not_retryable"),
        (ask(seen=True), "output_seen"),
        (ask(so_far=5), "attempts_exhausted"),
        (ask(so_far=9), "attempts_exhausted"),
        (
            ask(Failure(Outcome.ACCESS_DENIED, "edge_refused", "network", retryable=True), earlier_same_code=1),
            "retried_once",
        ),
        (
            ask(Failure(Outcome.PROTOCOL_ERROR, "bad_json", "provider", retryable=True), earlier_same_code=1),
            "retried_once",
        ),
        (ask(deadline=100.0), "run_deadline"),
        (
            ask(
                Failure(Outcome.RATE_LIMITED, "rate_limited", "account", retryable=True, retry_after=180),
                deadline=200.0,
            ),
            "run_deadline",
        ),
        (
            ask(Failure(Outcome.RATE_LIMITED, "rate_limited", "account", retryable=True, retry_after=math.inf)),
            "run_deadline",
        ),
    ],
)
def test_the_rule_that_forbids_a_retry_is_named(decision, reason):
    assert decision == GiveUp(reason)


def test_an_edge_refusal_may_be_tried_once_more():
    assert isinstance(ask(Failure(Outcome.ACCESS_DENIED, "edge_refused", "network", retryable=True)), RetryAt)


def test_output_does_not_forbid_a_retry_that_resumes():
    assert isinstance(ask(seen=True, can_resume=True), RetryAt)


def test_a_wait_past_120_seconds_is_honoured():
    decision = ask(
        Failure(Outcome.RATE_LIMITED, "rate_limited", "account", retryable=True, retry_after=180), deadline=1000.0
    )
    assert 180 <= decision.seconds <= 198


def test_interrupted_attempts_cost_none_and_lost_ones_do():
    assert counted([Outcome.INTERRUPTED, Outcome.LOST, Outcome.OVERLOADED, Outcome.INTERRUPTED, None]) == 3


def test_a_job_whose_deployment_is_at_fault_comes_back_ever_later_and_never_later_than_five_minutes():
    assert [hold_delay(times, 0.0) for times in (1, 2, 3, 10, 10**6)] == [5.0, 10.0, 20.0, 300.0, 300.0]
    assert hold_delay(1, 0.999) < 6.0
