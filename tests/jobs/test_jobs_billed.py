"""What a cancelled job says of its bill: yes, no, or unknown, and never a guess."""

from __future__ import annotations

from decimal import Decimal

import pytest
from builders import CANCELLED, COMPLETED, STARTED, began, done, life

from worker.jobs import events as ev
from worker.jobs.billed import billed_view, is_billed
from worker.jobs.record import Usage
from worker.jobs.states import Outcome

COUNTED = Usage(input_tokens=1000, output_tokens=200, total_tokens=1200)
GUESSED = COUNTED.evolve(estimated=True)
KNOWN = (ev.AttemptUpdated(response_id="resp_1", http_status=200), 1)


def stopped(**changes):
    return (done(Outcome.CANCELLED, **changes), 1)


@pytest.mark.parametrize(
    ("drafts", "state", "cost", "estimated"),
    [
        ([], "no", "0.000000", False),
        ([STARTED, (began(), 1), KNOWN, stopped(usage=COUNTED, cost=Decimal("0.012"))], "yes", "0.012000", False),
        ([STARTED, (began(), 1), KNOWN, stopped(usage=Usage(), cost=Decimal(0))], "no", "0.000000", False),
        ([STARTED, (began(), 1), KNOWN, stopped(usage=GUESSED, cost=Decimal("0.01"))], "unknown", "0.010000", True),
        ([STARTED, (began(), 1), KNOWN, stopped(usage=COUNTED)], "yes", None, False),  # a model without a price
        ([STARTED, (began(), 1), stopped(cost=Decimal(0))], "unknown", None, False),  # never answered
        ([STARTED, (began(), 1), stopped(http_status=429, cost=Decimal(0))], "no", "0.000000", False),
        ([STARTED, (began(), 1), (done(Outcome.STREAM_CUT), 1)], "unknown", None, False),  # it may run on
        ([STARTED, (began(), 1), (done(Outcome.OVERLOADED, http_status=503), 1)], "no", "0.000000", False),
    ],
)
def test_the_bill_of_what_ran(drafts, state, cost, estimated):
    job, _ = life(*drafts, CANCELLED)
    shown = billed_view(job)
    assert shown is not None
    assert (shown["state"], shown["cost"], shown["estimated"]) == (state, cost, estimated)
    assert is_billed(job.attempts) is {"yes": True, "no": False, "unknown": None}[state]
    assert shown["message"].endswith(".")


def test_only_a_cancelled_job_has_one():
    job, _ = life(STARTED, (began(), 1), KNOWN, (done(usage=COUNTED), 1), (COMPLETED, 1))
    assert billed_view(job) is None
