"""What became of a job, in one paragraph: true sentences from the record, and nothing of prompt or output."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from builders import (
    BLOCKED,
    CANCELLED,
    COMPLETED,
    EXPIRED,
    FAILED,
    HELD,
    LUNA,
    SOL,
    STARTED,
    T0,
    backoff,
    began,
    disclosure,
    done,
    life,
    noticed,
    queued,
)

from worker.jobs import events as ev
from worker.jobs.record import Usage
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, ScheduledReason
from worker.jobs.view_schema import WaitingForView
from worker.safety.explanation import explain, lasting

NO_QUOTA = ev.Scheduled(reason=ScheduledReason.HOLD, hold_scope="key:abc", hold_reason="quota_exhausted")
PAUSED = ev.Scheduled(reason=ScheduledReason.HOLD, hold_scope="pause:model:gpt-5.6-sol", hold_reason="a note")
NOW = T0 + timedelta(seconds=30)
COUNTED = Usage(input_tokens=1000, output_tokens=200, total_tokens=1200)
CHECK = [(noticed(), 1), (ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1)]


def text_of(*drafts, **first):
    shown = explain(life(*drafts, first=queued(**first))[0], NOW)
    assert "\n" not in shown["text"]
    assert "  " not in shown["text"]
    assert shown["text"].endswith(".")
    assert shown["text"] == " ".join(
        sentence
        for name in ("outcome", "calls", "checks", "substitution", "notices", "cost", "advice")
        if (sentence := shown[name])
    )
    return shown["text"]


def test_an_ordinary_answer():
    text = text_of(STARTED, (began(), 1), (done(usage=COUNTED, cost=Decimal("0.0123")), 1), (COMPLETED, 1))
    assert text == "The job completed after 4.0 s: gpt-5.6-sol answered. It cost $0.012300."


def test_a_check_and_another_model_that_the_app_accepted():
    digest = "sha256:" + "0" * 64
    accepted = ev.OfferAccepted(model=LUNA, by="key_7", policy_version=3, terms_digest=digest)
    statement = disclosure(reason="offer_accepted", decided_by="app", message="Luna serves instead of Sol.")
    text = text_of(
        *(STARTED, (began(), 1), (noticed(), 1), (ev.OfferMade(model=LUNA, policy_version=3), None), (accepted, None)),
        (ev.CheckEnded(ended_by=CheckEnd.SUBSTITUTED), 1),
        (done(Outcome.SUBSTITUTED, cost=Decimal("0.004")), 1),
        (ev.ModelSubstituted(disclosure=statement, policy_version=3), 1),
        (began(LUNA, Purpose.FASTER), 2),
        (done(cost=Decimal("0.008")), 2),
        (ev.Completed(served_model=LUNA, disclosure=statement), 2),
    )
    assert "gpt-5.6-luna answered" in text
    assert "It took 2 calls: gpt-5.6-sol (substituted), gpt-5.6-luna (completed)." in text
    assert (
        "The provider announced a safety check (about cyber), which lasted 3.0 s until another model took over." in text
    )
    assert "Luna serves instead of Sol. The key key_7 accepted that at 2026-07-01T12:00:05Z." in text
    assert "It cost $0.012000, of which $0.004000 for calls whose answer was not delivered." in text


@pytest.mark.parametrize(
    ("drafts", "parts"),
    [
        ([], ["has waited for a worker for 30 s."]),
        ([HELD], ["is on hold, because of insufficient_quota.", "goes on by itself"]),
        (
            [NO_QUOTA],
            [
                "is on hold: The organisation's quota is used up. Ask the organisation's owner",
                "goes on by itself once that has ended.",
            ],
        ),
        (
            [STARTED, (began(), 1), (done(Outcome.OVERLOADED), 1), (backoff(), None)],
            ["is tried again at 2026-07-01T12:00:05Z", "because its last call failed."],
        ),
        ([PAUSED], ["is on hold: the operators have paused jobs like it. The job goes on by itself"]),
        (
            [STARTED, (began(), 1)],
            [
                "The job is running on gpt-5.6-sol, 30 s after it was submitted.",
                "So far it has cost $0.000000, without what is still running.",
            ],
        ),
        (
            [STARTED, (began(), 1), (noticed(), 1), (began(LUNA, Purpose.DRAFT), 2)],
            ["The job is running on gpt-5.6-sol and gpt-5.6-luna,"],
        ),
        (
            [STARTED, (began(), 1), (noticed(), 1), (began(LUNA, Purpose.DRAFT), 2), (done(), 2)],
            ["The job is running on gpt-5.6-sol, 30 s after", "It has taken 2 calls: gpt-5.6-sol (running)"],
        ),
        (
            [STARTED, (began(), 1), CHECK[0]],
            ["additional safety check", "nothing needs to be done", "the job expires."],
        ),
        (
            [STARTED, (began(), 1), CHECK[0], (ev.OfferMade(model=LUNA), None)],
            ["if you accept, the model gpt-5.6-luna serves", "`vigil retry` accepts the offer."],
        ),
        (
            [STARTED, (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)],
            ["The job was blocked after 4.0 s (cyber, cyber_policy)", "Ask for access."],
        ),
        (
            [STARTED, (began(), 1), (done(Outcome.OVERLOADED), 1), (FAILED, None)],
            ["failed after 4.0 s: The provider is overloaded.", "Try again later. `vigil rerun` runs it again"],
        ),
        ([EXPIRED], ["expired after 1.0 s", "It has cost nothing.", "`vigil rerun` runs it again"]),
        ([CANCELLED], ["was cancelled after 1.0 s", "It has cost nothing."]),
        (
            [STARTED, (began(), 1), (done(Outcome.CANCELLED, cost=Decimal(0)), 1), CANCELLED],
            ["it is not known whether it was received and is billed"],
        ),
        (
            [STARTED, (began(), 1), (done(flags=("unfiltered",)), 1), (COMPLETED, 1)],
            ["this answer was not filtered.", "not known, because the model has no price."],
        ),
        (
            [
                *(STARTED, (began(), 1), (noticed(Evidence.SUSPECTED), 1)),
                (ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1),
                *((done(Outcome.INCOMPLETE), 1), (ev.Completed(served_model=SOL, reason="max_output_tokens"), 1)),
            ],
            ["cut short by the token limit", "a safety check was suspected, for 1.0 s", "the provider announced none."],
        ),
    ],
)
def test_each_state_says_what_it_is(drafts, parts):
    text = text_of(*drafts)
    for part in parts:
        assert part in text


def test_a_model_that_did_not_answer_serves_nothing():
    text = text_of(
        *(STARTED, (began(), 1), (done(Outcome.ACCESS_DENIED), 1)),
        ev.ModelSubstituted(disclosure=disclosure(message="Luna serves this request.")),
        *((began(LUNA, Purpose.FALLBACK), 2), (done(Outcome.ACCESS_DENIED), 2), (FAILED, None)),
    )
    assert "The model gpt-5.6-luna was asked instead of the requested gpt-5.6-sol, because the provider denied" in text
    assert "serves" not in text


@pytest.mark.parametrize("until", [None, T0 + timedelta(minutes=2)])
def test_a_job_at_a_limit_says_which(until):
    wait: WaitingForView = {
        "reason": "provider_rate",
        "account": "default",
        "model": SOL,
        "since": T0,
        "until": until,
    }
    text = explain(life(first=queued())[0], NOW, wait)["text"]
    about = ", until about 2026-07-01T12:02:00Z" if until else ""
    assert text == f"The job for {SOL} waits for the rate limit of the provider, or of models.toml{about}."


def test_a_deleted_job_is_not_offered_again():
    removed = ev.ContentRemoved(because="deleted", by="key_1")
    assert "rerun" not in text_of(CANCELLED, removed)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (47.2, "47 s"), (125, "2 min 5 s"), (7260, "2 h 1 min"), (-5, "0.0 s")],
)
def test_how_long(seconds, text):
    assert lasting((T0 + timedelta(seconds=seconds), T0)) == text
