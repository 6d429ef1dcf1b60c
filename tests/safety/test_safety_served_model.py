"""Who served: equal names, dated names and aliases are the same model; anything else is a reroute."""

import pytest
from hypothesis import given, settings, strategies as st

from worker.safety.served_model import base_name, judge_served

ALIASES = {"gpt-5.6": "gpt-5.6-sol", "GPT-Daybreak-Blue-latest": "gpt-5.6-sol", "loop-a": "loop-b", "loop-b": "loop-a"}
SOL, LUNA, TERRA = "gpt-5.6-sol", "gpt-5.6-luna", "gpt-5.6-terra"


@pytest.mark.parametrize(
    "name", [SOL, "GPT-5.6-Sol", "gpt-5.6-sol-2026-07-09", "gpt-5.6", "gpt-daybreak-blue-latest", "gpt-5.6-2026-07-09"]
)
def test_names_of_the_same_model_have_one_base(name):
    assert base_name(name, ALIASES) == SOL


def test_a_circle_of_aliases_ends():
    assert base_name("loop-a", ALIASES) in ("loop-a", "loop-b")


@pytest.mark.parametrize(
    ("requested", "header", "created", "terminal", "served", "rerouted", "conflict"),
    [
        (SOL, None, SOL, SOL, SOL, False, False),
        (SOL, LUNA, SOL, LUNA, LUNA, True, True),  # T15 a
        (SOL, None, SOL, TERRA, TERRA, True, True),  # T15 b
        (SOL, None, "gpt-5.6-sol-2026-07-09", "gpt-5.6-sol-2026-07-09", SOL, False, False),  # T15 c
        ("gpt-5.6", None, SOL, SOL, "gpt-5.6", False, False),
        (SOL, LUNA, None, None, LUNA, True, False),
        (SOL, LUNA, SOL, SOL, LUNA, True, True),
        (SOL, None, LUNA, None, LUNA, True, False),
        (SOL, None, LUNA, SOL, SOL, False, True),
        (SOL, SOL, LUNA, None, SOL, False, True),
        (SOL, LUNA, LUNA, TERRA, TERRA, True, True),
        (SOL, None, None, None, None, False, False),
        (SOL, "", " ", None, None, False, False),
        (SOL, None, None, "GPT-5.6-Luna-2026-07-09", LUNA, True, False),
    ],
)
def test_who_served(requested, header, created, terminal, served, rerouted, conflict):
    verdict = judge_served(requested, header, created, terminal, ALIASES)
    assert (verdict.served_model, verdict.rerouted, verdict.conflict) == (served, rerouted, conflict)


def test_what_was_seen_is_kept_as_it_came():
    raw = judge_served(SOL, "GPT-5.6-Luna", None, "gpt-5.6-luna-2026-07-09").raw
    assert raw == {"requested": SOL, "header": "GPT-5.6-Luna", "terminal": "gpt-5.6-luna-2026-07-09"}


NAMES = st.none() | st.sampled_from([SOL, LUNA, TERRA, "gpt-5.6-sol-2026-07-09", "gpt-5.6", ""])


@given(NAMES, NAMES, NAMES)
@settings(max_examples=60)
def test_a_served_model_is_the_requested_one_exactly_when_it_is_no_reroute(header, created, terminal):
    verdict = judge_served(SOL, header, created, terminal, ALIASES)
    assert verdict.rerouted == (verdict.served_model not in (None, SOL))
