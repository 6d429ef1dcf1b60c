"""The simulation by hand: 100 s on sol with a check of 80 s, 20 s on luna; sol costs $35 for the job, luna $7."""

from __future__ import annotations

from decimal import Decimal

import pytest
from lab_cases import CATALOGUE, LUNA, SOL, case, one

from worker.jobs.states import RetryModelState
from worker.lab import evaluate, synthetic
from worker.lab.model import ACTIONS, THRESHOLDS, CheckSpan
from worker.safety import policy


def seconds(row):
    return row.wait_p50, row.settled_p50


def test_wait_takes_as_long_as_it_takes():
    row = one(case(), "wait")
    assert seconds(row) == (100.0, 100.0)
    assert (row.substituted, row.offered, row.drafted, row.blocked) == (0, 0, 0, 0)
    assert (row.wasted, row.extra) == (0, 0)


def test_switch_pays_for_what_the_original_had_written():
    """At 40 s sol is stopped: $5 + 40 % of $30 wasted; luna answers at 60 s for $7."""
    row = one(case(), "switch")
    assert seconds(row) == (60.0, 60.0)
    assert row.substituted == 1
    assert (row.wasted, row.extra) == (Decimal(17), Decimal(17 + 7 - 35))


def test_race_won_by_the_faster_one():
    """Both run from 40 s; luna wins at 60 s: $5 + 60 % of $30 wasted."""
    row = one(case(), "race")
    assert seconds(row) == (60.0, 60.0)
    assert row.substituted == 1
    assert (row.wasted, row.extra) == (Decimal(23), Decimal(23 + 7 - 35))


def test_race_won_by_the_original():
    """Luna would need 80 s and has had 60 s of them: $1 + 75 % of $6 wasted."""
    row = one(case(faster_seconds=80.0), "race")
    assert seconds(row) == (100.0, 100.0)
    assert row.substituted == 0
    assert row.wasted == row.extra == Decimal("5.5")


def test_a_dead_heat_is_the_originals():
    assert one(case(faster_seconds=60.0), "race").substituted == 0


def test_draft_shows_early_and_ends_as_before():
    row = one(case(), "draft")
    assert seconds(row) == (60.0, 100.0)
    assert (row.substituted, row.drafted) == (0, 1)
    assert row.wasted == row.extra == Decimal(7)


def test_a_draft_that_is_too_late_is_none():
    row = one(case(faster_seconds=80.0), "draft")
    assert seconds(row) == (100.0, 100.0)
    assert row.drafted == 0


def test_an_offer_that_nobody_accepts_changes_nothing():
    row = one(case(), "offer")
    assert seconds(row) == (100.0, 100.0)
    assert (row.offered, row.substituted, row.extra) == (1, 0, 0)


def test_an_open_offer_is_not_made_again_while_the_check_goes_on():
    row = one(case(silences=((0.0, 30.0),)), "offer", after=20.0, silence=200.0)
    assert (row.offered, row.substituted) == (1, 0)


def test_an_accepted_offer_is_a_switch_a_little_later():
    row = one(case(), "offer", accept=0.6)
    assert seconds(row) == (75.0, 75.0)
    assert (row.offered, row.substituted) == (1, 1)


def test_an_offer_can_only_be_accepted_while_the_check_lasts():
    assert one(case(), "offer", after=70.0, accept=1.0).substituted == 0


def test_an_offer_may_come_again_with_the_next_check():
    twice = case(end=300.0, holds=(CheckSpan(0.0, 50.0), CheckSpan(100.0, 200.0)))
    row = one(twice, "offer", accept=1.0)
    assert row.offered == 1
    assert row.wait_p50 == 140.0 + 15.0 + 20.0


@pytest.mark.parametrize("action", ["switch", "race", "draft", "offer"])
def test_a_check_that_clears_in_time_is_left_alone(action):
    row = one(case(), action, after=80.0, accept=1.0)
    assert seconds(row) == (100.0, 100.0)
    assert (row.substituted, row.offered, row.drafted, row.extra) == (0, 0, 0, 0)


def test_the_clock_of_a_second_check_starts_anew():
    twice = case(end=300.0, holds=(CheckSpan(0.0, 30.0), CheckSpan(100.0, 200.0)))
    assert one(twice, "switch").wait_p50 == 140.0 + 20.0


def test_silence_counts_only_where_checks_are_known_and_only_if_asked():
    silent = case(holds=())
    assert one(silent, "switch", silence=50.0).wait_p50 == 70.0
    assert one(silent, "switch", silence=0.0).wait_p50 == 100.0
    assert one(case(holds=(), model=LUNA), "switch", silence=50.0, model=SOL).wait_p50 == 100.0


def test_the_earlier_clock_acts_even_within_a_check():
    assert one(case(), "switch", after=60.0, silence=30.0).wait_p50 == 50.0


def test_the_providers_word_and_the_apps_own():
    none = case(holds=(CheckSpan(0.0, 80.0, None, RetryModelState.NONE),))
    assert one(none, "switch").substituted == 0
    assert one(none, "switch", model=LUNA).substituted == 1
    own = case(holds=(CheckSpan(0.0, 80.0, SOL, RetryModelState.NAMED),))
    assert one(own, "switch").substituted == 0


def test_a_model_without_a_price_makes_the_extra_cost_unknown():
    row = one(case(holds=(CheckSpan(0.0, 80.0, "gpt-9", RetryModelState.NAMED),)), "switch")
    assert (row.substituted, row.wasted, row.extra) == (1, 17, None)  # what sol had cost is known


@pytest.mark.parametrize(
    ("action", "wasted"),
    [
        ("wait", 35),  # as the record says: nothing was delivered
        ("switch", 17 + 7),
        ("race", 23 + 7),  # luna's block at 60 s ends both
        ("draft", 23 + 7),
    ],
)
def test_a_block_stays_a_block(action, wasted):
    row = one(case(blocked=True), action)
    assert (row.blocked, row.substituted, row.drafted) == (1, 0, 0)
    assert row.wasted == wasted
    assert seconds(row) == (0.0, 0.0)


def test_blocked_jobs_are_the_same_in_every_policy():
    cases = synthetic.draw(600, 7, SOL, LUNA).cases
    rows = evaluate.grid(cases, CATALOGUE, ACTIONS, THRESHOLDS, 60.0, accept=0.5)
    assert len(rows) == 25
    assert {row.blocked for row in rows} == {sum(c.blocked for c in cases) / 600}
    assert rows[0].blocked > 0


def test_no_policy_makes_a_single_job_faster_than_its_faster_model():
    for one_case in synthetic.draw(200, 3, SOL, LUNA).cases:
        if one_case.blocked:
            continue
        waited = one(one_case, "wait").wait_p50
        assert waited == one_case.end
        assert one(one_case, "race", after=15.0).wait_p50 <= waited
        draft = one(one_case, "draft", after=15.0)
        assert draft.wait_p50 <= draft.settled_p50 == waited


@pytest.mark.parametrize(
    ("ordered", "percent", "value"),
    [([], 50, 0), ([1], 95, 1), ([1, 2], 50, 1), ([1, 2, 3], 50, 2), (list(range(1, 101)), 95, 95)],
)
def test_percentiles_are_nearest_rank(ordered, percent, value):
    assert evaluate.percentile(ordered, percent) == value


def test_it_is_the_real_rule_that_is_asked():
    assert evaluate.decide is policy.decide
