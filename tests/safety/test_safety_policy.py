"""The Luna policy: every action against every course that a delay can take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worker.jobs.spec import OnDelay, Policy
from worker.jobs.states import RetryModelState
from worker.safety.policy import (
    DraftAction,
    FasterModel,
    NoFasterModel,
    OfferAction,
    RaceAction,
    Situation,
    SwitchAction,
    WaitAction,
    decide,
)

LUNA = FasterModel("gpt-5.6-luna")
ACTS = {"offer": OfferAction, "switch": SwitchAction, "race": RaceAction, "draft": DraftAction}
CHECKED = Situation(check_since=100.0, checked=True, retry_model_state=RetryModelState.ABSENT)
SILENT = Situation(silent_since=100.0, checked=True)


def rule(action, after=45.0, silence=120.0, **more):
    return Policy(on_delay=OnDelay(action=action, after_seconds=after, silence_seconds=silence), **more)


@pytest.mark.parametrize("action", ACTS)
def test_a_signalled_check_is_waited_for_and_then_acted_on(action):
    assert decide(rule(action), CHECKED, LUNA, 100.0) == WaitAction(145.0)
    assert decide(rule(action), CHECKED, LUNA, 144.999) == WaitAction(145.0)
    assert decide(rule(action), CHECKED, LUNA, 145.0) == ACTS[action]("gpt-5.6-luna", "safety_check_delay")
    assert decide(rule(action), CHECKED, LUNA, 9999.0) == ACTS[action]("gpt-5.6-luna", "safety_check_delay")


@pytest.mark.parametrize("action", ACTS)
def test_silence_is_acted_on_and_called_silence(action):
    assert decide(rule(action), SILENT, LUNA, 219.0) == WaitAction(220.0)
    assert decide(rule(action), SILENT, LUNA, 220.0) == ACTS[action]("gpt-5.6-luna", "silence")


@pytest.mark.parametrize("action", ACTS)
def test_zero_means_never_on_silence_and_at_once_on_a_check(action):
    assert decide(rule(action, silence=0.0), SILENT, LUNA, 1e6) == WaitAction()
    assert decide(rule(action, after=0.0), CHECKED, LUNA, 100.0) == ACTS[action]("gpt-5.6-luna", "safety_check_delay")


def test_silence_of_a_model_that_is_never_checked_means_nothing():
    assert decide(rule("switch"), replace(SILENT, checked=False), LUNA, 1e6) == WaitAction()


def test_the_earlier_of_the_two_clocks_acts_and_the_better_evidence_is_stated():
    both = replace(CHECKED, silent_since=90.0)
    assert decide(rule("switch", after=200.0), both, LUNA, 150.0) == WaitAction(210.0)
    assert decide(rule("switch", after=200.0), both, LUNA, 210.0) == SwitchAction("gpt-5.6-luna", "silence")
    assert decide(rule("switch", after=200.0), both, LUNA, 300.0) == SwitchAction("gpt-5.6-luna", "safety_check_delay")


def test_wait_waits():
    assert decide(rule("wait"), replace(CHECKED, silent_since=0.0), LUNA, 1e6) == WaitAction()


@pytest.mark.parametrize("action", ACTS)
def test_a_check_that_cleared_starts_nothing_and_the_next_one_counts_anew(action):
    cleared = replace(CHECKED, check_since=None)
    assert decide(rule(action), cleared, LUNA, 1e6) == WaitAction()
    again = replace(CHECKED, check_since=200.0)
    assert decide(rule(action), again, LUNA, 210.0) == WaitAction(245.0)
    assert isinstance(decide(rule(action), again, LUNA, 245.0), ACTS[action])


@pytest.mark.parametrize("action", ["switch", "race", "draft"])
@pytest.mark.parametrize("done", [{"acted": True}, {"faster_running": True}])
def test_an_action_happens_once_in_a_job(action, done):
    assert decide(rule(action), replace(CHECKED, **done), LUNA, 1e6) == WaitAction()


def test_an_offer_is_made_once_for_a_check_and_again_for_the_next_one():
    assert decide(rule("offer"), replace(CHECKED, offered=True), LUNA, 1e6) == WaitAction()
    assert decide(rule("offer"), replace(CHECKED, check_since=500.0), LUNA, 545.0) == OfferAction(
        "gpt-5.6-luna", "safety_check_delay"
    )
    assert decide(rule("offer"), replace(CHECKED, faster_running=True), LUNA, 1e6) == WaitAction()


@pytest.mark.parametrize("action", ["wait", *ACTS])
@pytest.mark.parametrize("end", [{"blocked": True}, {"settled": True}])
def test_nothing_follows_a_block_or_the_end(action, end):
    assert decide(rule(action), replace(CHECKED, **end), LUNA, 1e6) == WaitAction()


@pytest.mark.parametrize("action", ACTS)
def test_what_forbids_an_action(action):
    assert decide(rule(action, require_model=True), CHECKED, LUNA, 1e6) == WaitAction()
    assert decide(rule(action), CHECKED, NoFasterModel("provider_said_none"), 1e6) == WaitAction()
    assert decide(rule(action), CHECKED, LUNA, 1e6, cost_allows=False) == WaitAction()


@pytest.mark.parametrize("action", ACTS)
def test_output_that_was_seen_changes_nothing(action):
    """A check may begin in the middle of the text; only the winner's text is delivered."""
    assert isinstance(decide(rule(action), replace(CHECKED, output_seen=True), LUNA, 145.0), ACTS[action])
