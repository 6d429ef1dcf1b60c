"""Prices as the access guide has them, money as exact strings, and a catalogue that reports all its faults."""

import tomllib
from decimal import Decimal

import pytest
from builders import LUNA, SOL, TERRA, shipped
from hypothesis import given, strategies as st

from worker.jobs.catalogue import dollars, parse
from worker.jobs.errors import SettingsError, UnknownModel
from worker.jobs.record import Usage

MILLION = 1_000_000
ROW = {"family": "f", "tier": "fast", "checked": False, "input": "1", "output": "6"}


@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "sol", "terra", "luna"),
    [(10, 2, 110, 55, 22), (50, 10, 550, 275, 110), (100, 20, 1100, 550, 220)],
)
def test_the_access_guides_table_of_monthly_costs(tokens_in, tokens_out, sol, terra, luna):
    usage = Usage(input_tokens=tokens_in * MILLION, output_tokens=tokens_out * MILLION)
    costs = [shipped().cost(model, usage) for model in (SOL, TERRA, LUNA)]
    assert costs == [Decimal(sol), Decimal(terra), Decimal(luna)]
    assert dollars(costs[0]) == f"{sol}.000000"


def test_reasoning_tokens_are_within_output_and_cost_nothing_more():
    with_reasoning = Usage(input_tokens=1000, output_tokens=500, reasoning_tokens=400, total_tokens=1500)
    assert shipped().cost(SOL, with_reasoning) == Decimal("0.02")


def test_a_single_token_is_counted_exactly():
    assert shipped().cost(LUNA, Usage(input_tokens=1)) == Decimal("0.000001")
    assert shipped().cost(TERRA, Usage(input_tokens=1)) == Decimal("0.0000025")
    assert dollars(Decimal("0.0000025")) == "0.0000025"


def test_cached_tokens_cost_their_own_price_or_else_what_input_costs():
    usage = Usage(input_tokens=MILLION, cached_input_tokens=MILLION // 2)
    assert parse({"models": {"m": ROW}}).cost("m", usage) == 1
    assert parse({"models": {"m": {**ROW, "cached_input": "0.1"}}}).cost("m", usage) == Decimal("0.55")
    more_than_all = Usage(input_tokens=10, cached_input_tokens=99)
    assert parse({"models": {"m": {**ROW, "cached_input": "0"}}}).cost("m", more_than_all) == 0


def test_a_model_that_is_not_in_the_catalogue_has_no_price():
    assert shipped().cost("gpt-9", Usage(input_tokens=1)) is None


@given(st.decimals(0, 10**9, places=9))
def test_dollars_are_exact_and_have_six_decimals_at_least(amount):
    text = dollars(amount)
    whole, _, part = text.partition(".")
    assert Decimal(text) == amount
    assert whole.isdigit()
    assert len(part) == 6 or (len(part) > 6 and part[-1] != "0")


def test_dollars_never_use_an_exponent():
    assert dollars(Decimal("1E+3")) == "1000.000000"
    assert dollars(Decimal("1E-9")) == "0.000000001"
    assert dollars(Decimal(0)) == "0.000000"


def test_an_alias_is_its_model_everywhere():
    models = shipped()
    assert models.get("gpt-5.6") == models.get(SOL)
    assert models.cost("gpt-5.6", Usage(output_tokens=MILLION)) == 30
    assert models.faster("gpt-5.6") == LUNA
    assert models.fallback("gpt-5.6") == (TERRA, LUNA)
    assert models.capability("gpt-5.6", SOL) == "same"


def test_the_fast_tier_of_the_family_stands_in_for_the_others():
    assert [shipped().faster(m) for m in (SOL, TERRA, LUNA, "gpt-9")] == [LUNA, LUNA, None, None]


def test_the_fallback_chain_goes_down_from_the_model_that_was_asked_for():
    chains = [shipped().fallback(m) for m in (SOL, TERRA, LUNA, "gpt-9")]
    assert chains == [(TERRA, LUNA), (LUNA,), (), ()]


def test_a_model_outside_its_familys_chain_has_no_fallback():
    models = parse({"families": {"f": {"fallback": ["a"]}}, "models": {"a": ROW, "b": ROW}})
    assert models.fallback("b") == ()


@pytest.mark.parametrize(
    ("requested", "served", "word"),
    [
        (SOL, LUNA, "lower"),
        (SOL, TERRA, "lower"),
        (LUNA, SOL, "higher"),
        (TERRA, TERRA, "same"),
        (SOL, "gpt-9", "unknown"),
        ("gpt-9", SOL, "unknown"),
        (SOL, "other", "unknown"),
    ],
)
def test_capability_compares_tiers_within_one_family(requested, served, word):
    table = {"families": {}, "models": {"other": ROW}}
    models = shipped()
    models.models.update(parse(table).models)
    assert models.capability(requested, served) == word


def test_an_unknown_model_is_told_with_the_known_ones():
    with pytest.raises(UnknownModel, match=r"gpt-9.*gpt-5\.6-luna, gpt-5\.6-sol, gpt-5\.6-terra"):
        shipped().get("gpt-9")


def test_a_model_needs_its_name_only():
    models = parse(tomllib.loads('[models."llama3"]'))
    llama = models.get("llama3")
    assert (llama.family, llama.tier, llama.checked, llama.input) == ("llama3", "balanced", False, None)
    assert models.cost("llama3", Usage(input_tokens=MILLION)) is None
    assert (models.faster("llama3"), models.fallback("llama3")) == (None, ())


def test_a_rank_that_nobody_gave_is_not_compared():
    models = parse({"models": {"a": {"family": "f"}, "b": {"family": "f", "tier": "fast"}}})
    assert (models.capability("a", "b"), models.capability("b", "a")) == ("unknown", "unknown")
    assert models.capability("a", "a") == "same"


def test_half_a_price_is_a_fault():
    for row in ({"input": "1"}, {"output": "1"}, {"cached_input": "1"}):
        (fault,) = faults_of({"models": {"m": row}})
        assert "'m'" in fault
        assert "both or none" in fault


@pytest.mark.parametrize("unknown_checked", [False, True])
def test_whether_an_unknown_model_may_be_checked_is_the_operators_word(unknown_checked):
    models = parse({"models": {"plain": {}, "held": {"checked": True}}}, unknown_checked=unknown_checked)
    assert [models.checked(name) for name in ("plain", "held", "gpt-9")] == [False, True, unknown_checked]


def faults_of(table):
    with pytest.raises(SettingsError) as caught:
        parse(table)
    return caught.value.faults


def test_all_faults_are_reported_together():
    table = tomllib.loads(
        """
        [families.a]
        fast = "nobody"
        slow = 1
        [families.b]
        fast = "ghost"
        fallback = ["good", "phantom"]
        [models.good]
        family = "b"
        tier = "fast"
        checked = false
        input = "1"
        output = "2"
        [models.no-price]
        family = "b"
        tier = "fast"
        checked = false
        input = "1"
        [models.bad-price]
        family = "b"
        tier = "fast"
        checked = false
        input = "cheap"
        output = "2"
        [models.negative]
        family = "b"
        tier = "fast"
        checked = false
        input = "-1"
        output = "2"
        [models.endless]
        family = "b"
        tier = "fast"
        checked = false
        input = "Infinity"
        output = "2"
        [models.bad-tier]
        family = "b"
        tier = "huge"
        checked = false
        input = "1"
        output = "2"
        """
    )
    faults = faults_of(table)
    for word in ("'a'", "'ghost'", "'phantom'", "'no-price'", "'bad-price'", "'negative'", "'endless'", "'bad-tier'"):
        assert sum(word in fault for fault in faults) == 1, (word, faults)
    assert len(faults) == 8


@pytest.mark.parametrize("table", [{"models": 3}, {"models": {"m": ROW}, "families": "x"}, {"models": {"m": 3}}])
def test_what_is_no_table_is_a_fault_and_not_a_crash(table):
    assert len(faults_of(table)) == 1


def test_an_empty_catalogue_is_a_fault():
    assert "no [models" in faults_of({})[0]


def test_an_alias_may_not_stand_for_two_models_or_hide_one():
    assert "'b'" in faults_of({"models": {"a": {**ROW, "aliases": ["b"]}, "b": ROW}})[0]
    assert "'x'" in faults_of({"models": {"a": {**ROW, "aliases": ["x"]}, "b": {**ROW, "aliases": ["x"]}}})[0]


def test_prices_may_be_numbers_and_stay_exact():
    assert parse({"models": {"m": {**ROW, "input": 0.1}}}).cost("m", Usage(input_tokens=3 * MILLION)) == Decimal("0.3")
