"""max_cost_usd holds: whatever a request uses within its bounds costs no more than its plan and what is left."""

from __future__ import annotations

from decimal import Decimal

import pytest
from builders import LUNA, SOL, STARTED, T0, began, done, life, queued, shipped
from hypothesis import given, strategies as st

from worker.jobs.catalogue import parse
from worker.jobs.record import CallTerms, Usage
from worker.jobs.request_shape import RequestShape
from worker.jobs.spec import Policy
from worker.jobs.states import Outcome, Purpose
from worker.safety.cost_cap import MIN_OUTPUT_TOKENS, left_of_cap, plan_call

CATALOGUE = shipped()
_shapes = st.builds(
    RequestShape,
    likely_input=st.integers(1, 1000),
    bytes_input=st.integers(1, 1_200_000),
    unmeasured=st.booleans(),
    service_tier=st.sampled_from([None, "auto", "flex", "fast", "ultrafast", "odd"]),
    window=st.sampled_from([None, "2h"]),
    output_limit=st.none() | st.integers(1, 300_000),
    kept_12h=st.booleans(),
)


@given(_shapes, st.sampled_from(sorted(CATALOGUE.models)), st.decimals(0, 30, places=4), st.booleans(), st.data())
def test_no_usage_within_the_bounds_costs_more_than_is_left(shape, model, left, regional, data):
    plan = plan_call(CATALOGUE, model, shape, T0, left=left, regional=regional)
    if not plan.fits:
        return
    known = CATALOGUE.get(model)
    limit = plan.terms.max_output_tokens or shape.output_limit
    assert limit is not None, "no model's own limit is relied on"
    read = data.draw(st.integers(0, shape.highest_input(known.context_tokens)))
    cached, written = data.draw(st.integers(0, read)), data.draw(st.integers(0, read))
    usage = Usage(
        input_tokens=read,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        cache_write_12h_tokens=written if shape.kept_12h else 0,
        output_tokens=data.draw(st.integers(0, limit)),
    )
    priced = CATALOGUE.price(model, usage, T0, plan.terms)
    assert plan.highest is not None
    assert priced.amount <= plan.highest <= left
    assert plan.terms.max_cost == plan.highest


@given(_shapes, st.sampled_from(sorted(CATALOGUE.models)), st.decimals(0, 30, places=4))
def test_a_limit_that_is_sent_is_below_the_apps_own_and_never_above_the_models(shape, model, left):
    terms = plan_call(CATALOGUE, model, shape, T0, left=left).terms
    if terms.max_output_tokens is not None:
        assert terms.max_output_tokens < (shape.output_limit or 10**9)
        assert terms.max_output_tokens >= MIN_OUTPUT_TOKENS
        if shape.output_limit is None:
            assert terms.max_output_tokens <= (CATALOGUE.get(model).max_output_tokens or 0)


def test_without_a_cap_nothing_is_limited_and_the_most_is_known():
    plan = plan_call(CATALOGUE, LUNA, RequestShape(bytes_input=1000, output_limit=500), T0)
    assert (plan.fits, plan.terms.max_output_tokens, plan.terms.max_cost) == (True, None, None)
    assert plan.highest == (1000 * Decimal("1.25") + 500 * 6) / 1_000_000


def test_a_tier_without_a_price_counts_as_the_dearest():
    def highest(tier):
        return plan_call(CATALOGUE, SOL, RequestShape(bytes_input=100, output_limit=100, service_tier=tier), T0).highest

    assert highest("no-such-tier") == 6 * highest(None)


def test_a_model_without_a_price_has_no_bound():
    assert plan_call(CATALOGUE, "llama3", RequestShape(bytes_input=9), T0, left=Decimal(0)).fits


def test_what_no_model_can_put_out_is_no_limit_to_send():
    local = parse({"models": {"local": {"input": "0.1", "output": "0.1"}}})
    rich, poor = (
        plan_call(local, "local", RequestShape(bytes_input=9), T0, left=Decimal(left)) for left in (9, "0.01")
    )
    assert (rich.terms.max_output_tokens, rich.fits) == (None, True)
    assert poor.terms.max_output_tokens == 99_991


def test_a_dated_name_is_priced_as_its_model():
    dated = plan_call(CATALOGUE, f"{SOL}-2026-06-26", RequestShape(bytes_input=9), T0, left=Decimal(0))
    assert not dated.fits


@pytest.mark.parametrize(
    ("drafts", "stopping", "left"),
    [
        ((), None, "0.3"),
        (((done(Outcome.SUBSTITUTED, cost=Decimal("0.1")), 2),), None, "0.8"),
        ((), {2: Decimal("0.2")}, "0.7"),
    ],
)
def test_what_ended_counts_as_it_cost_and_what_runs_as_the_most_that_it_can(drafts, stopping, left):
    second = began(LUNA, Purpose.RETRY).evolve(terms=CallTerms(max_cost=Decimal("0.6")))
    job, _ = life(
        STARTED,
        (began(), 1),
        (done(Outcome.SERVER_ERROR, cost=Decimal("0.1")), 1),
        (second, 2),
        first=queued(policy=Policy(max_cost_usd=Decimal(1))),
    )
    assert left_of_cap(job, drafts, stopping) == Decimal(left)
    assert left_of_cap(life()[0]) is None
