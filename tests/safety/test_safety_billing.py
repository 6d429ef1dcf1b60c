"""What an attempt costs without a usage of the provider: nothing if refused, its estimated input if accepted."""

from __future__ import annotations

from decimal import Decimal

import pytest
from builders import LUNA, SOL, STARTED, T0, began, life, shipped

from worker.jobs.record import CallTerms, Usage
from worker.jobs.states import Outcome
from worker.safety.event_mapping import abort_attempt, price_of, usage_or_estimate

ACCEPTED = {Outcome.BLOCKED, Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.SUBSTITUTED, Outcome.LOST}
ACCEPTED |= {Outcome.INTERRUPTED, Outcome.STREAM_CUT, Outcome.IDLE_TIMEOUT}
ACCEPTED |= {Outcome.COMPLETED, Outcome.REFUSED, Outcome.INCOMPLETE}


def attempt(**terms):
    job, _ = life(STARTED, (began().evolve(terms=CallTerms(input_tokens=1000, **terms)), 1))
    return job.attempts[0]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_accepted_call_is_billed_for_its_input_and_a_refused_one_for_nothing(outcome):
    accepted = usage_or_estimate(attempt(), outcome, None, 0, 200)
    assert bool(accepted) == (outcome in ACCEPTED)
    if accepted:
        assert (accepted.input_tokens, accepted.output_tokens, accepted.estimated) == (1000, 0, True)
    assert usage_or_estimate(attempt(), outcome, None, 0, 400) is None, "an HTTP error, also that of a block"
    assert usage_or_estimate(attempt(), outcome, None, 0, None) is None, "it never reached the provider"


def test_counted_deltas_and_the_providers_own_count():
    estimated = usage_or_estimate(attempt(), Outcome.SERVER_ERROR, None, 7, 200)
    assert estimated is not None
    assert (estimated.input_tokens, estimated.output_tokens) == (1000, 7)
    usage_told = Usage(input_tokens=3, output_tokens=4)
    assert usage_or_estimate(attempt(), Outcome.BLOCKED, usage_told, 7, 400) is usage_told


def test_a_known_model_never_costs_none():
    job, _ = life(STARTED, (began().evolve(terms=CallTerms(input_tokens=1000)), 1))
    for outcome in (Outcome.LOST, Outcome.TIMED_OUT, Outcome.INTERRUPTED, Outcome.BAD_REQUEST):
        [(finished, _)] = abort_attempt(job, 1, outcome, 0, shipped())
        assert (finished.cost, finished.price.model) == (0, SOL)


@pytest.mark.parametrize(
    ("served", "model"), [(None, SOL), (LUNA, LUNA), (f"{LUNA}-2026-07-09", LUNA), ("GPT-5.6-Luna", LUNA), ("odd", SOL)]
)
def test_the_model_that_served_is_paid_whatever_its_date(served, model):
    priced = price_of(shipped(), attempt(service_tier="fast"), Usage(output_tokens=10), served, "priority")
    assert (priced.applied.model, priced.applied.tier, priced.applied.valid_from.date()) == (
        model,
        "priority",
        shipped().get(model).row(T0).start.date(),
    )
    assert priced.amount == 2 * 10 * shipped().get(model).row(T0).output / Decimal(1_000_000)
