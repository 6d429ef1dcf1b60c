"""What safety cost a job: each way in which a check, a block or a faster model takes time, tokens and money."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from builders import (
    BLOCKED,
    CANCELLED,
    COMPLETED,
    EXPIRED,
    FAILED,
    LUNA,
    SOL,
    STARTED,
    any_draft,
    began,
    disclosure,
    done,
    legal,
    life,
    noticed,
    queued,
)
from hypothesis import given, strategies as st

from worker.jobs import events as ev, fold
from worker.jobs.record import Usage
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose
from worker.safety.loss_counts import LOSSES, loss_counts, week_of
from worker.safety.report_csv import csv_text
from worker.safety.report_weeks import BadWeek, weeks_between

BILLED = {"usage": Usage(input_tokens=100, output_tokens=20), "cost": Decimal("0.0031")}
GUESSED = {"usage": Usage(input_tokens=50, output_tokens=5, estimated=True), "cost": Decimal("0.0007")}


def ended(by: CheckEnd) -> ev.CheckEnded:
    return ev.CheckEnded(ended_by=by)


def substitute(reason: str) -> Any:
    return disclosure(LUNA, SOL, reason=reason)


def counts(*drafts: Any) -> dict[str, int]:
    return dict(loss_counts(life(STARTED, *drafts)[0]))


def test_an_ordinary_job_costs_nothing_but_itself():
    assert counts((began(), 1), (done(**BILLED), 1), (COMPLETED, 1)) == {
        "jobs": 1,
        "all.n": 1,
        "all.in": 100,
        "all.out": 20,
        "all.usd": 3_100_000,
    }


def test_a_job_that_has_not_ended_is_not_counted():
    assert counts((began(), 1)) == {}


def test_a_check_that_ends_with_the_answer_costs_its_time():
    found = counts((began(), 1), (noticed(), 1), (ended(CheckEnd.OUTPUT), 1), (done(**BILLED), 1), (COMPLETED, 1))
    assert (found["checked"], found["check.signalled.answer.n"]) == (1, 1)
    assert found["check.signalled.answer.ms"] == found["lost.ms"] == 1_000
    assert not any(f"{group}.n" in found for group in LOSSES)


def test_silence_is_counted_apart_and_is_no_lost_time():
    suspected = noticed(Evidence.SUSPECTED)
    found = counts((began(), 1), (suspected, 1), (ended(CheckEnd.OUTPUT), 1), (done(**BILLED), 1), (COMPLETED, 1))
    assert (found["suspected"], found["check.suspected.answer.ms"]) == (1, 1_000)
    assert "checked" not in found
    assert "lost.ms" not in found


def test_a_block_costs_what_was_billed_and_the_whole_run():
    blocked = (done(Outcome.BLOCKED, **GUESSED), 1)
    found = counts((began(), 1), (noticed(), 1), (ended(CheckEnd.BLOCKED), 1), blocked, (BLOCKED, None))
    assert (found["blocked"], found["blocked.n"], found["blocked.usd"]) == (1, 1, 700_000)
    assert (found["blocked.estimated"], found["blocked.estimated_usd"]) == (1, 700_000)
    assert found["check.signalled.block.n"] == 1
    assert found["lost.ms"] == found["blocked.ms"] == 5_000, "from the start to the end; the check is within it"


def test_a_block_without_a_price_counts_its_tokens_apart():
    usage = Usage(input_tokens=9, output_tokens=1)
    found = counts((began(), 1), (done(Outcome.BLOCKED, usage=usage), 1), (BLOCKED, None))
    assert (found["blocked.unpriced"], found["blocked.unpriced_tokens"]) == (1, 10)
    assert "blocked.usd" not in found


def test_a_switch_costs_the_dropped_attempt_and_saves_the_difference():
    switch = ev.ModelSubstituted(disclosure=substitute("safety_check_delay"))
    answer = done(served_model=LUNA, cost_as_requested=Decimal("0.0100"), **BILLED)
    found = counts(
        *((began(), 1), (noticed(), 1), (ended(CheckEnd.SUBSTITUTED), 1), (done(Outcome.SUBSTITUTED, **GUESSED), 1)),
        *((switch, 1), (began(LUNA, Purpose.FASTER), 2), (answer, 2)),
        (ev.Completed(served_model=LUNA, disclosure=substitute("safety_check_delay")), 2),
    )
    assert (found["substituted"], found["substituted.safety_check_delay"]) == (1, 1)
    assert (found["rerouted.n"], found["rerouted.usd"], found["check.signalled.reroute.n"]) == (1, 700_000, 1)
    assert found["lost.ms"] == found["rerouted.ms"] == 3_000, "until the faster model began"
    assert (found["compared"], found["saved"]) == (1, 6_900_000)
    assert "extra" not in found


def test_a_lost_race_costs_the_time_before_the_faster_model_began():
    statement = substitute("silence")
    found = counts(
        *((began(), 1), (began(LUNA, Purpose.RACE), 2), (done(served_model=LUNA, **BILLED), 2)),
        *((done(Outcome.CANCELLED, **GUESSED), 1), (ev.ModelSubstituted(disclosure=statement), 1)),
        (ev.Completed(served_model=LUNA, disclosure=statement), 2),
    )
    assert (found["rerouted.n"], found["rerouted.ms"], found["not_compared"]) == (1, 1_000, 1)


def test_a_draft_that_was_replaced_costs_money_and_no_time():
    found = counts(
        *((began(), 1), (began(LUNA, Purpose.DRAFT), 2), (done(**GUESSED), 2), (ev.DraftReady(model=LUNA), 2)),
        *((done(**BILLED), 1), (ev.DraftWithdrawn(because="replaced"), 2), (COMPLETED, 1)),
    )
    assert (found["rerouted.n"], found["rerouted.usd"]) == (1, 700_000)
    assert "rerouted.ms" not in found
    assert "substituted" not in found


@pytest.mark.parametrize(
    ("outcome", "by", "end"),
    [(Outcome.CANCELLED, CheckEnd.CANCELLED, CANCELLED), (Outcome.TIMED_OUT, CheckEnd.TIMED_OUT, EXPIRED)],
)
def test_what_was_given_up_during_a_check_is_lost_to_it(outcome, by, end):
    found = counts((began(), 1), (noticed(), 1), (ended(by), 1), (done(outcome, **GUESSED), 1), (end, None))
    assert (found["given_up.n"], found["given_up.usd"], found["check.signalled.given_up.n"]) == (1, 700_000, 1)
    assert found["lost.ms"] == 1_000


def test_plain_failures_are_no_cost_of_safety():
    found = counts((began(), 1), (done(Outcome.STREAM_CUT, **GUESSED), 1), (FAILED, None))
    assert not any(f"{group}.n" in found for group in LOSSES)
    cancelled = counts((began(), 1), (done(Outcome.CANCELLED, **GUESSED), 1), (CANCELLED, None))
    assert "given_up.n" not in cancelled, "no check ran"


def test_a_denied_model_is_no_substitution_by_safety():
    statement = substitute("access_denied")
    found = counts(
        *((began(), 1), (done(Outcome.ACCESS_DENIED), 1), (ev.ModelSubstituted(disclosure=statement), 1)),
        *((began(LUNA, Purpose.FALLBACK), 2), (done(**BILLED), 2)),
        (ev.Completed(served_model=LUNA, disclosure=statement), 2),
    )
    assert "substituted" not in found
    assert "rerouted.n" not in found


def test_no_usage_makes_a_sum_overflow():
    huge = {"usage": Usage(input_tokens=10**30, output_tokens=10**30), "cost": Decimal(10**40)}
    assert max(counts((began(), 1), (done(**huge), 1), (COMPLETED, 1)).values()) <= 10**15


@given(st.lists(any_draft, max_size=12))
def test_whatever_happens_no_count_is_negative_and_the_trail_gives_the_same(drafts):
    job, trail = life(STARTED, first=queued())
    for draft in drafts:
        if legal(job, draft):
            trail.append(ev.event(job.version + 1, trail[-1].at, job.id, *draft))
            job = fold.apply(job, trail[-1])
    found = loss_counts(job)
    assert all(count > 0 for count in found.values())
    again = fold.replay(ev.Event.load(event.dump()) for event in trail)
    assert loss_counts(again) == found
    assert sum(found.get(f"{group}.n", 0) for group in LOSSES) <= found.get("all.n", 0)


def test_weeks_are_iso_weeks_of_utc():
    assert week_of(datetime(2027, 1, 3, 23, 59, tzinfo=UTC)) == "2026-W53"
    assert week_of(datetime(2027, 1, 4, tzinfo=UTC)) == "2027-W01"
    assert weeks_between(date(2027, 1, 6), None, None) == ["2026-W51", "2026-W52", "2026-W53", "2027-W01"]
    assert weeks_between(date(2027, 1, 6), "2026-12-31", "2026-W53") == ["2026-W53"]


@pytest.mark.parametrize(
    ("first", "last"),
    [("2026-W54", None), ("yesterday", None), (None, "0001-01-01"), ("2026-W40", "2026-W39"), ("2020-W01", None)],
)
def test_weeks_that_are_none_are_refused(first, last):
    with pytest.raises(BadWeek):
        weeks_between(date(2026, 12, 1), first, last)


def test_a_cell_is_never_a_formula():
    text = csv_text(["model"], [{"model": "=cmd|' /C calc'!A0", "jobs": {"ended": 2}}], {"jobs": {"ended": 0}})
    assert text == "model,jobs_ended\r\n'=cmd|' /C calc'!A0,2\r\n"
    for first in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20":
        row = csv_text(["model"], [{"model": f"{first}1"}], {}).partition("\r\n")[2]
        assert row.lstrip('"').startswith(f"'{first}")
