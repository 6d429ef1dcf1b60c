"""Which model may stand in: the app's word, the provider's, the catalogue's, in this order."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from worker.jobs.catalogue import parse
from worker.jobs.states import RetryModelState
from worker.safety.faster_model import FasterModel, NoFasterModel, faster_model

CATALOGUE = parse(tomllib.loads((Path(__file__).parents[2] / "models.toml").read_text()))
SOL, TERRA, LUNA = "gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"
NAMED, NONE, ABSENT = RetryModelState.NAMED, RetryModelState.NONE, RetryModelState.ABSENT


def ask(requested=SOL, policy_model=None, named=None, state=ABSENT, denied=(), **more):
    return faster_model(requested, policy_model, named, state, CATALOGUE, denied, **more)


@pytest.mark.parametrize("requested", [SOL, TERRA, "gpt-5.6", "gpt-5.6-sol-2026-07-09"])
def test_when_nobody_says_anything_the_fast_tier_of_the_family(requested):
    assert ask(requested) == FasterModel(LUNA)


def test_the_provider_is_heard_when_the_app_is_silent():
    assert ask(named=TERRA, state=NAMED) == FasterModel(TERRA)
    assert ask(state=NONE) == NoFasterModel("provider_said_none")
    assert ask(named=None, state=NAMED) == FasterModel(LUNA)


@pytest.mark.parametrize("state", [NAMED, NONE, ABSENT])
def test_the_apps_own_choice_holds_whatever_the_provider_says(state):
    assert ask(policy_model=TERRA, named=LUNA, state=state) == FasterModel(TERRA)


@pytest.mark.parametrize("same", [SOL, "gpt-5.6", "GPT-5.6-sol-2026-07-09"])
def test_the_same_model_under_another_name_is_not_faster(same):
    assert ask(policy_model=same) == NoFasterModel("same_model")
    assert ask(named=same, state=NAMED) == NoFasterModel("same_model")
    assert ask(requested=same, named=SOL, state=NAMED) == NoFasterModel("same_model")


def test_a_fallback_that_runs_is_not_offered_to_itself():
    assert ask(running=LUNA, named=LUNA, state=NAMED) == NoFasterModel("same_model")
    assert ask(running=TERRA) == FasterModel(LUNA)
    assert ask(running=LUNA) == NoFasterModel("no_faster_tier")
    assert ask(running=TERRA, named=SOL, state=NAMED) == NoFasterModel("same_model")


def test_the_fast_tier_has_no_faster_one():
    assert ask(LUNA) == NoFasterModel("no_faster_tier")
    assert ask("another-model") == NoFasterModel("no_faster_tier")


def test_a_denied_model_is_not_chosen_and_not_replaced():
    assert ask(denied={LUNA}) == NoFasterModel("denied")
    assert ask(policy_model="gpt-5.6-luna-2026-07-09", denied=[LUNA]) == NoFasterModel("denied")
    assert ask(named=TERRA, state=NAMED, denied=[LUNA]) == FasterModel(TERRA)


@pytest.mark.parametrize("where", [{"policy_model": "gpt-9"}, {"named": "gpt-9", "state": NAMED}])
def test_an_unknown_model_only_where_the_operator_allows_it(where):
    assert ask(**where) == NoFasterModel("unknown_model")
    assert ask(**where, allow_unknown=True) == FasterModel("gpt-9")


def test_a_dated_name_of_a_known_model_is_that_model():
    assert ask(named="gpt-5.6-luna-2026-07-09", state=NAMED) == FasterModel(LUNA)
