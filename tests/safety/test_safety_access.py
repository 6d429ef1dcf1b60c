"""When a model is skipped: all orders of denials, probes and answers, against the rule in one sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, strategies as st

from worker.safety.access import DENIED, MAX_PROBE_DELAY, OK, UNCLEAR, Diagnosis, ModelAccess, backoff

START = datetime(2026, 7, 1, tzinfo=UTC)
NOT_GRANTED, WRONG_PROJECT = Diagnosis("not_granted", "model_not_granted"), Diagnosis("wrong_project", "wrong_project")
STEPS = ["denied", "answered", "claimed", OK, UNCLEAR, NOT_GRANTED, WRONG_PROJECT, Diagnosis("key", "invalid_key")]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 900)), max_size=30))
def test_a_model_is_skipped_only_after_a_real_denial_that_the_latest_probe_since_confirms(steps):
    access, now = ModelAccess(), START
    denied = False  # for real, and neither answered nor listed since
    confirmed = False
    for step, seconds in steps:
        now += timedelta(seconds=seconds)
        before = access
        match step:
            case "denied":
                access = access.after_denial(now) or access
                denied = True  # what was confirmed stays so
            case "answered":
                access = access.after_answer("req", now) or access
                denied = confirmed = False
            case "claimed":
                access = access.after_claim(now) or access
            case _:
                access = access.after_probe(step, "req", now)
                denied = denied and step is not OK
                confirmed = denied and step.status in DENIED
                assert access.probed_at == now
        assert access.skipped == (denied and confirmed)
        assert (access.next_probe_at is not None) == access.skipped
        fresh = access.status != before.status or before.since is None
        assert access.since == before.since or (access.since == now and fresh)
        if access.next_probe_at is not None:
            assert access.next_probe_at <= now + MAX_PROBE_DELAY
        assert access.advice.endswith(".")
        assert ModelAccess.model_validate_json(access.model_dump_json()) == access


def test_the_wait_grows_from_half_a_minute_to_ten():
    assert [backoff(n).total_seconds() for n in (1, 2, 3, 4, 5, 6, 60)] == [30, 60, 120, 240, 480, 600, 600]


def test_only_one_claims_a_probe_that_is_due():
    row = (ModelAccess().after_denial(START) or ModelAccess()).after_probe(NOT_GRANTED, None, START)
    assert row.after_claim(START + timedelta(seconds=29)) is None
    later = START + timedelta(seconds=30)
    first = row.after_claim(later)
    assert first is not None
    assert (first.tries, first.after_claim(later)) == (2, None)
