"""Price rows: which is in force, what long requests, caches, tiers and windows cost, and strict parsing."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from builders import LUNA, SOL, TERRA, shipped
from hypothesis import given, strategies as st

from worker.jobs.catalogue import parse
from worker.jobs.errors import SettingsError
from worker.jobs.record import CallTerms, Usage

M = 1_000_000
ROWS = """
[terms.t]
cache_write_factor = "1.25"
cache_write_12h_factor = "2.5"
long_context = {{ over = 1000, input = "2", output = "1.5" }}
tiers = {{ flex = "0.5", fast = "2" }}
windows = {{ "2h" = "0.7" }}
regional = "1.1"
[[models.m.prices]]
from = 2026-01-01
{first}
input = "8"
cached_input = "1"
output = "10"
terms = "t"
source = "a page"
checked_on = 2026-01-02
[[models.m.prices]]
from = 2026-03-01
input = "4"
output = "5"
terms = "t"
tiers = {{ ultrafast = "6" }}
"""


def rows(first=""):
    return parse(tomllib.loads(ROWS.format(first=first)))


def at(month, day=1, hour=0):
    return datetime(2026, month, day, hour, tzinfo=UTC)


def price(usage, when=None, tier=None, **terms):
    found = rows().price("m", usage, when or at(1), CallTerms(**terms), served_tier=tier)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("when", "cost", "notes"),
    [
        (at(1), 8, ()),
        (at(2, 28, 23), 8, ()),
        (at(3), 4, ()),
        (at(12), 4, ()),
        (at(1) - timedelta(days=9), 8, ("before_first_row",)),
    ],
)
def test_the_row_in_force_at_that_time_counts(when, cost, notes):
    found = rows().price("m", Usage(input_tokens=M), when, long_context=False)
    assert (found.amount, found.applied.notes) == (cost, notes)


def test_after_the_last_known_end_the_last_row_goes_on_and_says_so():
    found = shipped().price(SOL, Usage(output_tokens=M), datetime(2026, 12, 24, tzinfo=UTC))
    assert (found.amount, found.applied.notes) == (20, ("row_ended",))


@pytest.mark.parametrize(
    ("model", "when", "expected"),
    [
        (SOL, "2026-06-29", "5 30"), (SOL, "2026-08-20", "5 30"), (SOL, "2026-08-21", "4 20"),
        (TERRA, "2026-07-29", "2.5 15"), (TERRA, "2026-07-30", "2 12"),
        (LUNA, "2026-06-29", "1 6"), (LUNA, "2026-11-29", "0.2 1.2"),
        ("gpt-6-astra", "2026-11-29", "10 50"), ("gpt-6-luna", "2026-11-29", "0.1 0.5"),
        ("gpt-6.1-terra", "2026-11-29", "1 5"), ("gpt-6.2-sol", "2027-03-01", "2 10"),
    ],
)  # fmt: skip
def test_what_ships_is_what_the_providers_pages_said(model, when, expected):
    moment = datetime.fromisoformat(when).replace(tzinfo=UTC)
    costs = [
        shipped().cost(model, usage, moment, long_context=False)
        for usage in (Usage(input_tokens=M), Usage(output_tokens=M))
    ]
    assert costs == [Decimal(one) for one in expected.split()]


def test_every_shipped_row_has_source_and_day_and_none_leaves_a_gap():
    for model in shipped().models.values():
        assert all(row.source and row.checked_on and row.start for row in model.prices)
        assert [row.end for row in model.prices[:-1]] == [row.start for row in model.prices[1:]]
    sol = shipped().models["gpt-6.2-sol"].prices
    assert [row.tiers["ultrafast"] for row in sol] == [3, 6]
    assert (sol[0].cache_write, sol[0].cache_write_12h) == (Decimal("2.5"), 5)


def test_over_the_limit_the_whole_request_costs_more():
    short, long = Usage(input_tokens=1000, output_tokens=10), Usage(input_tokens=1001, output_tokens=10)
    assert price(short).amount * M == 1000 * 8 + 10 * 10
    found = price(long)
    assert found.amount * M == 1001 * 8 * 2 + 10 * 10 * Decimal("1.5")
    assert found.applied.long_context


def test_the_cache_is_part_of_the_input_and_never_more_than_it():
    usage = Usage(input_tokens=100, cached_input_tokens=10, cache_write_tokens=30, cache_write_12h_tokens=20)
    assert price(usage).amount * M == 60 * 8 + 10 * 1 + 10 * 10 + 20 * 20
    absurd = Usage(input_tokens=10, cached_input_tokens=99, cache_write_tokens=99, cache_write_12h_tokens=99)
    assert price(absurd).amount * M == 10


@pytest.mark.parametrize(
    ("requested", "served", "window", "regional", "factor", "notes"),
    [
        (None, None, None, False, "1", ()),
        ("auto", None, None, False, "1", ()),
        ("auto", "default", None, True, "1.1", ()),
        ("flex", None, None, False, "0.5", ()),
        ("fast", "priority", None, False, "2", ()),
        ("priority", "default", None, False, "1", ()),
        ("default", "fast", None, False, "2", ()),
        (None, None, "2h", False, "0.7", ()),
        ("flex", "flex", "2h", False, "0.5", ()),
        (None, None, "9h", False, "1", ("window_price_unknown",)),
        ("ultrafast", None, None, False, "1", ("tier_price_unknown",)),
    ],
)
def test_tier_window_and_region_are_factors(requested, served, window, regional, factor, notes):
    usage = Usage(input_tokens=500, output_tokens=100)
    found = price(usage, tier=served, service_tier=requested, window=window, regional=regional)
    assert found.amount == price(usage).amount * Decimal(factor)
    assert (found.applied.factor, found.applied.notes) == (Decimal(factor), notes)


@given(
    st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 400),
    st.sampled_from([None, "flex", "fast"]),
)  # fmt: skip
def test_a_cost_is_never_negative_and_more_output_never_costs_less(read, cached, written, output, day, tier):
    when = at(1) + timedelta(days=day)
    usage = Usage(input_tokens=read, cached_input_tokens=cached, cache_write_tokens=written, output_tokens=output)
    more = usage.evolve(output_tokens=output + 1)
    assert 0 <= price(usage, when, service_tier=tier).amount < price(more, when, service_tier=tier).amount


def faults_of(text):
    with pytest.raises(SettingsError) as caught:
        parse(tomllib.loads(text))
    return caught.value.faults


ROW = '[[models.m.prices]]\nfrom = 2026-01-01\ninput = "1"\noutput = "2"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROW + "until = 2026-05-01\n" + ROW.replace("01-01", "04-01"), "overlap"),
        (ROW + "until = 2026-03-01\n" + ROW.replace("01-01", "04-01"), "gap from 2026-03-01 until 2026-04-01"),
        (ROW + ROW, "two price rows are from 2026-01-01"),
        (ROW + ROW.replace("from = 2026-01-01\n", ""), "`from` is missing"),
        (ROW + "until = 2025-01-01\n", "`until` is not after `from`"),
        (ROW + "until = 2026-01-01\n", "`until` is not after `from`"),
        (ROW.replace("2026-01-01", '"soon"'), "`from` is no date"),
        (ROW.replace("2026-01-01", "2026-01-01T12:00:00"), "without an offset"),
        (ROW.replace("2026-01-01", "12:00:00"), "`from` is no date"),
        (ROW.replace("2026-01-01", "20260101"), "`from` is no date"),
        (ROW + "checked_on = true\n", "`checked_on` is no date"),
        (ROW + 'source = ""\n', "`source` is one line"),
        (ROW + 'source = "a\\nb"\n', "`source` is one line"),
        (ROW + 'price = "1"\n', "unknown key 'price'"),
        (ROW + 'terms = "t"\n', "no table [terms.'t']"),
        (ROW + 'long_context = { over = -1, input = "2", output = "2" }\n', "`long_context.over`"),
        (ROW + 'long_context = { over = 1, input = "2" }\n', "`long_context.output`"),
        (ROW + 'long_context = { over = 1, input = "2", output = "2", more = 1 }\n', "unknown key 'more'"),
        (ROW + 'tiers = { flex = "-0.5" }\n', "`tiers.flex` is a number from 0"),
        (ROW + 'tiers = { fast = "2", priority = "2" }\n', "two factors for 'priority'"),
        (ROW + 'tiers = { default = "2" }\n', "no factor for auto, default or standard"),
        (ROW + "windows = 3\n", "`windows` is a table"),
        (ROW + "cached_input = nan\n", "`cached_input` is a number from 0"),
        (ROW + "cached_input = inf\n", "`cached_input` is a number from 0"),
        (ROW + "cached_input = true\n", "`cached_input` is a number from 0"),
        (ROW + 'cached_input = "1e-40"\n', "decimal places"),
        (ROW + 'cached_input = "1e40"\n', "`cached_input` is a number from 0"),
        ('[models.m]\ninput = "1"\n' + ROW, "stands beside `prices`"),
        ("[models.m]\nprices = 1\n", "`prices` is a list of tables"),
        ("[models.m]\nprices = []\n", "`prices` is a list of tables"),
        ("[models.m]\nprices = [1]\n", "is no table"),
        ("[models.m]\nefforts_refused = [1]\n", "`efforts_refused` is a list of efforts"),
        ("[models.m]\ncontext_tokens = 0\n", "`context_tokens` is a number of tokens"),
        ("[models.m]\nshutdown_date = 2027-01-01T00:00:00Z\n", "`shutdown_date` is a date"),
        ("[models.m]\nfallback = ['x']\n", "names 'x' as its fallback"),
        ("[models.m]\n[terms.t]\nfoo = 1\n", "terms 't': unknown key 'foo'"),
        ("[models.m]\n[terms]\nt = 1\n", "terms 't': is no table"),
        ("[models.m]\n[prices]\n", "unknown key 'prices'"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line_that_says_where(text, words):
    faults = faults_of(text)
    assert len(faults) == 1, faults
    assert words in faults[0]
    assert "\n" not in faults[0]


def test_a_list_of_efforts_is_known_and_a_model_may_refuse_one():
    models = shipped()
    assert models.refuses_effort("gpt-6.2-sol", "none")
    assert not models.refuses_effort("gpt-6.2-sol", "high")
    assert not models.refuses_effort("gpt-6.1-terra", "minimal")
    assert not models.refuses_effort("gpt-9", "none")


def test_chains_of_previews_end_outside_their_family():
    models = shipped()
    for model in models.models.values():
        chain = models.fallback(model.id)
        if model.checked:
            assert models.get(chain[-1]).family != model.family
            assert not models.get(chain[-1]).checked


def test_a_newer_catalogue_is_seen_by_all_who_hold_the_older_one():
    held = rows()
    held.replace_with(parse({"models": {"n": {"aliases": ["x"]}}}))
    assert (held.find("m"), held.get("x").id) == (None, "n")


def test_as_of_a_day_there_is_one_price():
    june = shipped().as_of(datetime(2026, 6, 29, tzinfo=UTC))
    assert june.cost(SOL, Usage(output_tokens=M)) == 30
    assert june.fallback(SOL) == shipped().fallback(SOL)
