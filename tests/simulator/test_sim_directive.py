"""The directive language never crashes and prints what it reads."""

import pytest
from hypothesis import given, strategies as st

from worker.simulator.directive import OPTIONS, Directive, DirectiveError, find, parse
from worker.simulator.plan import Plan, resolve
from worker.simulator.scenarios import SCENARIOS

VALUES = {
    "hold": st.floats(0, 86_400),
    "tokens": st.integers(0, 200_000),
    "rate": st.floats(0.01, 100_000),
    "times": st.integers(0, 1_000_000),
    "use_case": st.from_regex(r"[a-z,]{1,20}", fullmatch=True),
    "carrier": st.sampled_from(["http", "http_403", "html", "error_event", "flat_error", "incomplete"]),
    "how": st.sampled_from(["rst", "fin", "clean", "half", "bad_json", "hang", "no_terminal"]),
    "tool": st.booleans(),
}
directives = st.builds(Directive, st.sampled_from(list(SCENARIOS)), st.fixed_dictionaries({}, optional=VALUES))


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = find(text)
    except DirectiveError:
        return
    assert found is None or find(str(found)) == found


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_anything_between_the_brackets_is_read_or_refused(inner: str) -> None:
    try:
        found = find(f"before [[sim:{inner}]] after")
        assert found is not None
        resolve(found, "gpt-5.6-sol")
    except DirectiveError:
        return


@given(directives, st.text(alphabet="abc \n", max_size=20))
def test_a_directive_is_printed_and_found_again_anywhere(directive: Directive, around: str) -> None:
    found = find(f"{around}{directive}{around}")
    assert found == directive
    assert resolve(directive, "gpt-5.6-sol").scenario == directive.scenario


def test_without_a_directive_there_is_nothing() -> None:
    assert find("what is [sim]?") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[sim: check_then_clear hold=long]]", "hold="),
        ("[[sim: normal tokens=-1]]", "tokens="),
        ("[[sim: normal colour=red]]", "known options"),
        ("[[sim: normal hold]]", "known options"),
        ("[[sim: normal", "closed"),
        ("[[sim: ]]", "SCENARIO"),
        ("[[sim: cut how=gently]]", "rst, fin"),
    ],
)
def test_a_bad_directive_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(DirectiveError, match=message):
        find(text)


def test_an_unknown_scenario_names_the_known_ones() -> None:
    with pytest.raises(DirectiveError, match="check_then_clear"):
        resolve(parse("no_such_thing"), "gpt-5.6-sol")


def test_hyphens_and_capitals_are_fine() -> None:
    assert find("[[SIM: Check-Then-Clear]]") == Directive("check_then_clear")


@pytest.mark.parametrize("model", ["gpt-5.6-luna", "gpt-5-mini"])
def test_the_fast_tier_is_not_checked(model: str) -> None:
    assert resolve(parse("check_then_block"), model) == Plan()
    assert resolve(parse("check_then_block any=1"), model).carrier == "error_event"
    assert resolve(parse("quota"), model).carrier == "http"


def test_only_names_the_one_model_that_is_hit() -> None:
    assert resolve(parse("silent_delay only=gpt-5.6-sol"), "gpt-5.6-terra").hold == 0
    assert resolve(parse("silent_delay only=gpt-5.6-luna"), "gpt-5.6-luna").hold == 60


def test_scenarios_are_told_completely() -> None:
    for scenario in SCENARIOS.values():
        assert scenario.description.endswith(".")
        assert set(scenario.options) <= OPTIONS.keys()
        assert resolve(Directive(scenario.name), "gpt-5.6-sol").scenario == scenario.name
        assert (scenario.expected.block is None) == (scenario.expected.carrier is None)


def test_an_option_brings_what_it_needs() -> None:
    assert resolve(parse("normal code=bio_policy"), "m").carrier == "response_failed"
    assert resolve(parse("normal served=gpt-5.6-terra"), "m").route == "header"
    assert resolve(parse("normal after=3"), "m").how == "rst"
    assert resolve(parse("max_tokens tokens=3"), "m").partial == 3
