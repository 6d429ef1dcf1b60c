"""The client's copies of the API's values are the server's."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from worker.client import enums, policy
from worker.jobs import record, spec, states

ENUMS = ("CheckEnd", "Evidence", "Outcome", "Purpose", "RetryModelState", "SafetyState")
LITERALS = ("BlockCategory", "BlockScope", "Carrier", "DecidedBy", "DisclosureReason")


@pytest.mark.parametrize("name", ENUMS)
def test_an_enum_has_the_members_of_the_servers(name):
    assert _members(getattr(enums, name)) == _members(getattr(states, name))


def test_the_statuses_are_the_servers():
    assert _members(enums.JobStatus) == _members(states.Status)
    assert enums.TERMINAL == states.TERMINAL


@pytest.mark.parametrize("name", LITERALS)
def test_a_literal_has_the_values_of_the_servers(name):
    assert get_args(getattr(enums, name)) == get_args(getattr(record, name))


@pytest.mark.parametrize("name", ["Action", "Priority"])
def test_a_choice_of_a_job_has_the_values_of_the_servers(name):
    assert get_args(getattr(policy, name)) == get_args(getattr(spec, name))


def test_the_policy_has_the_fields_limits_and_defaults_of_the_servers():
    client_policy, server_policy = policy.Policy, spec.Policy
    assert _without_descriptions(client_policy.model_json_schema()) == _without_descriptions(
        server_policy.model_json_schema()
    )
    assert client_policy.model_config == server_policy.model_config
    assert client_policy().model_dump() == server_policy().model_dump()


@pytest.mark.parametrize("value", ["1.5", True, float("nan"), -1, 2_000_000])
def test_what_is_no_money_is_refused(value):
    for model in (policy.Policy, spec.Policy):
        with pytest.raises(ValueError, match="max_cost_usd"):
            model(max_cost_usd=value)


def _members(enum: Any) -> dict[str, str]:
    return {member.name: member.value for member in enum}


def _without_descriptions(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _without_descriptions(value) for name, value in schema.items() if name != "description"}
    return [_without_descriptions(value) for value in schema] if isinstance(schema, list) else schema
