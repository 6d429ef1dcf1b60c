"""The policy a caller may send: strict, with the contract's defaults."""

import json
import math
from decimal import Decimal

import pytest
from pydantic import ValidationError

from worker.jobs.spec import OnDelay, Policy


def test_the_defaults_are_the_contracts():
    assert Policy().model_dump() == {
        "on_delay": {"action": "offer", "after_seconds": 45.0, "silence_seconds": 120.0, "model": None},
        "fallback": "default",
        "require_model": False,
        "max_attempts": 5,
        "queue_deadline_seconds": None,
        "run_deadline_seconds": 3600.0,
        "max_cost_usd": None,
    }


@pytest.mark.parametrize("action", ["wait", "offer", "switch", "race", "draft"])
def test_every_action_of_the_contract_is_taken(action):
    assert OnDelay(action=action).action == action


@pytest.mark.parametrize(
    "body",
    [
        {"max_attempts": "5"},
        {"max_attempts": 5.5},
        {"max_attempts": True},
        {"max_attempts": 0},
        {"max_attempts": 51},
        {"require_model": "true"},
        {"require_model": 1},
        {"run_deadline_seconds": "60"},
        {"run_deadline_seconds": 0},
        {"run_deadline_seconds": None},
        {"queue_deadline_seconds": -1},
        {"queue_deadline_seconds": "1"},
        {"max_cost_usd": "1.5"},
        {"max_cost_usd": True},
        {"max_cost_usd": -1},
        {"max_cost_usd": [1]},
        {"fallback": "other"},
        {"fallback": [1]},
        {"fallback": [""]},
        {"fallback": ["a b"]},
        {"fallback": ["x"] * 11},
        {"fallback": None},
        {"on_delay": {"action": "panic"}},
        {"on_delay": {"model": "x\u0000y"}},
        {"on_delay": {"model": ""}},
        {"on_delay": {"after_seconds": "45"}},
        {"on_delay": {"after_seconds": -0.5}},
        {"on_delay": {"later": 1}},
        {"unknown": 1},
    ],
)
def test_what_the_contract_does_not_allow_is_refused(body):
    with pytest.raises(ValidationError):
        Policy.model_validate(body)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["run_deadline_seconds", "queue_deadline_seconds", "max_cost_usd"])
def test_no_number_is_endless(name, number):
    with pytest.raises(ValidationError):
        Policy.model_validate({name: number})
    with pytest.raises(ValidationError):
        Policy.model_validate({"on_delay": {"after_seconds": number}})


def test_a_fault_never_shows_the_value_that_was_sent():
    with pytest.raises(ValidationError) as caught:
        Policy.model_validate({"fallback": ["secret prompt"]})
    assert "secret prompt" not in str(caught.value)


def test_a_list_of_models_is_taken_and_an_empty_one_means_none():
    assert Policy.model_validate({"fallback": ["b", "a"]}).fallback == ("b", "a")
    assert Policy.model_validate({"fallback": []}).fallback == ()


def test_whole_numbers_are_seconds_too():
    assert OnDelay.model_validate({"after_seconds": 0, "silence_seconds": 30}).silence_seconds == 30


def test_money_is_exact_and_survives_the_record():
    policy = Policy.model_validate(json.loads('{"max_cost_usd": 0.1}'))
    assert policy.max_cost_usd == Decimal("0.1")
    assert Policy.model_validate_json(policy.model_dump_json()) == policy


def test_a_policy_never_changes():
    with pytest.raises(ValidationError):
        Policy().max_attempts = 6  # type: ignore[misc]
