"""What a verdict and its facts hold, and how an attempt ends by our own doing."""

import pytest
from safety_builders import MESSAGE, OPENED, SOL, Play, completed, created, notice, problem

from worker.jobs.errors import Failure
from worker.jobs.states import CheckEnd, Outcome
from worker.safety.signals import AccountFlagSignal, CheckEndedSignal, ResponseKnown
from worker.safety.stream import Flagged, ItemDone, Opened, StreamError, Terminal

STARTED = (OPENED, created())


def test_facts_of_the_call_are_told_once():
    play = Play().feed(OPENED, created(), created(1), Terminal(2, "completed", response_id="resp_sim01"))
    assert play.of(ResponseKnown) == [
        ResponseKnown(
            request_id="req_sim01",
            organization="org-sim",
            project="proj_sim",
            http_status=200,
            processing_ms=212,
            rate_limits={},
        ),
        ResponseKnown(first_event=True),
        ResponseKnown(response_id="resp_sim01"),
    ]


def test_a_resume_is_counted_and_keeps_the_first_ids():
    play = Play().feed(
        *STARTED, Opened(200, "req_2", project="proj_new", resumed=True), Opened(200, resumed=True), completed()
    )
    assert [s.resumed for s in play.of(ResponseKnown) if s.resumed] == [1, 2]
    assert play.verdict.request_id == "req_sim01"


def test_the_account_is_flagged_once():
    play = Play().feed(
        *STARTED, Flagged(("trusted_access_for_cyber",)), Flagged(("trusted_access_for_cyber",)), completed()
    )
    assert play.of(AccountFlagSignal) == [AccountFlagSignal(("trusted_access_for_cyber",))]
    assert play.verdict.flags == ("account_flagged",)


@pytest.mark.parametrize(
    ("wanted", "served", "flags"),
    [
        ("flex", "default", ("tier_changed",)),
        ("auto", "default", ()),
        (None, "flex", ()),
        ("flex", None, ()),
        ("fast", "priority", ()),
        ("priority", "fast", ()),
        ("fast", "default", ("tier_changed",)),
    ],
)
def test_another_service_tier_is_flagged(wanted, served, flags):
    assert Play(service_tier=wanted).feed(*STARTED, completed(service_tier=served)).verdict.flags == flags


def test_items_that_came_one_by_one_are_the_answer_when_the_snapshot_is_empty():
    first, second = dict(MESSAGE, id="1"), {"type": "function_call", "content": "odd", "id": "2"}
    assert Play().feed(*STARTED, ItemDone(2, 1, second), ItemDone(3, 0, first), completed()).verdict.output == (
        first,
        second,
    )


def test_nobody_said_who_served_an_answer_so_the_requested_model_did():
    verdict = Play().feed(OPENED, completed(model=None)).verdict
    assert (verdict.served_model, verdict.served_raw) == (SOL, {})


def test_no_output_shows_in_a_repr():
    verdict = (
        Play()
        .feed(
            *STARTED, completed(output=({"type": "message", "content": [{"type": "output_text", "text": "SECRET"}]},))
        )
        .verdict
    )
    assert "SECRET" not in repr(verdict)


# -- ends by our own doing


@pytest.mark.parametrize(
    ("outcome", "ended_by", "code", "resumable"),
    [
        (Outcome.SUBSTITUTED, CheckEnd.SUBSTITUTED, None, False),
        (Outcome.CANCELLED, CheckEnd.CANCELLED, None, False),
        (Outcome.INTERRUPTED, CheckEnd.INTERRUPTED, None, True),
        (Outcome.TIMED_OUT, CheckEnd.TIMED_OUT, "run_deadline", False),
        (Outcome.LOST, CheckEnd.LOST, "lost", False),
    ],
)
def test_we_end_the_attempt(outcome, ended_by, code, resumable):
    play = Play().feed(*STARTED, notice(1))
    play.signals += play.watch.stop(outcome)
    assert play.of(CheckEndedSignal) == [CheckEndedSignal(ended_by, 0)]
    failure = play.verdict.failure
    assert (play.verdict.outcome, failure.code if failure else None, play.verdict.resumable) == (
        outcome,
        code,
        resumable,
    )
    assert play.watch.stop(Outcome.CANCELLED) == []


def test_a_block_already_told_is_stronger_than_our_wish_to_stop():
    play = Play().feed(*STARTED, StreamError(1, problem("cyber_policy"), "error_event"))
    play.signals += play.watch.stop(Outcome.CANCELLED)
    assert play.verdict.outcome is Outcome.BLOCKED
    assert isinstance(play.verdict.failure, Failure)
