"""The transcripts T01 to T19 of wire.md, as our own events: what an app and an auditor would see of each."""

import pytest
from safety_builders import (
    ABSENT,
    LUNA,
    MESSAGE,
    NAMED,
    OPENED,
    REFUSAL,
    SOL,
    TERRA,
    USAGE,
    Play,
    alive,
    completed,
    created,
    notice,
    out,
    problem,
)

from worker.jobs.states import CheckEnd, Evidence, Outcome
from worker.safety.signals import CheckEndedSignal, CheckStartedSignal, CheckUpdatedSignal, FirstOutput
from worker.safety.stream import Closed, Delta, ItemDone, Opened, PartDone, Rejected, Served, StreamError, Terminal
from worker.safety.watch_limits import WatchLimits

SUSPECT = WatchLimits(suspect_after=45.0)


def test_t01_an_ordinary_answer_and_one_event_too_many():
    play = Play().feed(
        OPENED,
        created(),
        alive(1, "response.in_progress"),
        *out(2),
        completed(9),
        alive(10, "response.rate_limits.updated"),
    )
    verdict = play.verdict
    assert (verdict.outcome, verdict.served_model, verdict.usage, verdict.sequence) == (
        Outcome.COMPLETED,
        SOL,
        USAGE,
        9,
    )
    assert verdict.output == (MESSAGE,)
    assert verdict.flags == ()
    assert (play.watch.late_events, play.watch.verdict.flags) == (1, ("late_events",))
    assert len(play.of(FirstOutput)) == 1
    assert not play.of(CheckStartedSignal)
    assert (verdict.request_id, verdict.response_id, verdict.http_status) == ("req_sim01", "resp_sim01", 200)


def test_t02_a_check_that_clears():
    play = (
        Play()
        .feed(OPENED, created(), notice(1), alive(2, "response.in_progress"))
        .wait(12)
        .feed(*out(3), completed(10))
    )
    assert play.of(CheckStartedSignal, CheckEndedSignal) == [
        CheckStartedSignal(Evidence.SIGNALLED, ("cyber",), ("user_risk",), LUNA, NAMED),
        CheckEndedSignal(CheckEnd.OUTPUT, 0),
    ]
    assert play.verdict.outcome is Outcome.COMPLETED


def test_t03_a_long_check_that_is_repeated_to_the_end():
    bio = {"use_cases": ("bio",), "state": ABSENT}
    play = Play(limits=SUSPECT).feed(OPENED, created(), notice(1, use_cases=("bio",)), alive(1, "response.in_progress"))
    play.wait(30).feed(alive(2)).wait(30).feed(alive(3), notice(4, **bio)).wait(35)
    play.feed(
        alive(5),
        alive(6),
        notice(7, **bio, piggybacked=True),
        Delta(7, "Hello."),
        notice(12, **bio, piggybacked=True),
        completed(12),
    )
    assert play.of(CheckStartedSignal, CheckUpdatedSignal, CheckEndedSignal) == [
        CheckStartedSignal(Evidence.SIGNALLED, ("bio",), ("user_risk",), LUNA, NAMED),
        CheckEndedSignal(CheckEnd.OUTPUT, 2),
        CheckUpdatedSignal(Evidence.SIGNALLED, ("bio",), ("user_risk",), LUNA, NAMED, 3),
    ]
    assert play.verdict.outcome is Outcome.COMPLETED


def test_t03b_the_silent_twin_is_only_suspected():
    play = Play(limits=SUSPECT).feed(OPENED, created(), alive(1, "response.in_progress"))
    play.wait(30).feed(alive(2)).wait(30).feed(alive(3)).wait(35).feed(*out(5), completed(12))
    assert play.of(CheckStartedSignal, CheckEndedSignal) == [
        CheckStartedSignal(Evidence.SUSPECTED),
        CheckEndedSignal(CheckEnd.OUTPUT, 0),
    ]
    assert play.verdict.outcome is Outcome.COMPLETED


def test_t04_a_block_in_the_middle_told_by_two_events_with_two_codes():
    play = Play().feed(OPENED, created(), notice(1), alive(2, "response.in_progress")).wait(8)
    play.feed(alive(3, "response.output_item.added"), alive(4), Delta(5, "Step one ")).wait(4)
    play.feed(StreamError(6, problem("cyber_policy", "invalid_request"), "error_event"))
    play.feed(Terminal(7, "failed", problem=problem("server_error"), usage=USAGE))
    verdict = play.verdict
    assert verdict.outcome is Outcome.BLOCKED
    assert (verdict.block.category, verdict.block.carrier, verdict.block.after_output) == ("cyber", "error_event", True)
    assert verdict.output == ()
    assert verdict.usage == USAGE


def test_t05_a_block_after_a_hold():
    play = Play().feed(OPENED, created(), notice(1, use_cases=("bio",)), alive(2)).wait(35)
    play.feed(Terminal(3, "failed", problem=problem("bio_policy")))
    assert (play.verdict.block.category, play.verdict.block.carrier, play.verdict.block.after_output) == (
        "bio",
        "response_failed",
        False,
    )
    assert play.of(CheckEndedSignal) == [CheckEndedSignal(CheckEnd.BLOCKED, 0)]


@pytest.mark.parametrize(
    ("code", "category"), [("cyber_policy", "cyber"), ("invalid_prompt", "prompt"), ("bio_policy", "bio")]
)
def test_t06_a_block_before_the_stream(code, category):
    play = Play().wait(9.9).feed(Rejected(400, problem(code, "invalid_request"), "req_sim01", processing_ms=9922))
    assert (play.verdict.block.category, play.verdict.block.carrier) == (category, "http_400")
    assert (play.verdict.http_status, play.verdict.request_id) == (400, "req_sim01")


def test_t07_a_refusal_is_the_models_own_answer():
    play = Play().feed(
        OPENED, created(), Delta(4, "Sorry, I can't ", "refusal"), Delta(5, "help.", "refusal"), PartDone(7)
    )
    play.feed(ItemDone(8, 0, REFUSAL), completed(9, output=(REFUSAL,)))
    assert (play.verdict.outcome, play.verdict.refused, play.verdict.failure) == (Outcome.REFUSED, True, None)


@pytest.mark.parametrize("events", [[ItemDone(2, 0, REFUSAL), completed()], [completed(output=(MESSAGE, REFUSAL))]])
def test_t07_a_refusal_is_found_in_items_alone(events):
    assert Play().feed(OPENED, created(), *events).verdict.outcome is Outcome.REFUSED


def test_t08_content_filter_withholds_the_partial_text():
    play = Play().feed(OPENED, created(), Delta(4, "a"), Delta(5, "b"))
    play.feed(Terminal(6, "incomplete", incomplete_reason="content_filter", carrier="incomplete", output=(MESSAGE,)))
    assert (play.verdict.block.category, play.verdict.block.carrier, play.verdict.output) == (
        "content_filter",
        "incomplete",
        (),
    )


@pytest.mark.parametrize(
    ("reason", "shown"), [("max_output_tokens", "max_output_tokens"), ("steered", "steered"), (None, "unknown")]
)
def test_t08b_a_short_answer_is_delivered_with_its_reason(reason, shown):
    play = Play().feed(
        OPENED, created(), Delta(4, "a"), Terminal(6, "incomplete", incomplete_reason=reason, output=(MESSAGE,))
    )
    verdict = play.verdict
    assert (verdict.outcome, verdict.incomplete_reason, verdict.output) == (Outcome.INCOMPLETE, shown, (MESSAGE,))
    assert verdict.served_model == SOL


@pytest.mark.parametrize(
    ("event", "outcome", "code"),
    [
        (Rejected(404, problem("model_not_found")), Outcome.ACCESS_DENIED, "model_not_granted"),  # T09
        (Rejected(403, problem("model_not_found")), Outcome.ACCESS_DENIED, "wrong_project"),  # T10
        (Rejected(403, None), Outcome.ACCESS_DENIED, "edge_refused"),
        (Rejected(429, problem("rate_limit_exceeded"), retry_after=1.5), Outcome.RATE_LIMITED, "rate_limited"),  # T11
        (Rejected(429, problem("insufficient_quota")), Outcome.QUOTA_EXHAUSTED, "quota_exhausted"),  # T12
        (Rejected(503, problem("server_is_overloaded")), Outcome.OVERLOADED, "overloaded"),  # T13
    ],
)
def test_t09_to_t13_errors_before_the_stream(event, outcome, code):
    verdict = Play().feed(event).verdict
    assert (verdict.outcome, verdict.failure.code, verdict.served_model, verdict.resumable) == (
        outcome,
        code,
        None,
        False,
    )


def test_t11d_a_rate_limit_in_the_stream_keeps_the_wait_told_in_prose():
    verdict = (
        Play()
        .feed(OPENED, created(), Terminal(2, "failed", problem=problem("rate_limit_exceeded", retry_after=1.898)))
        .verdict
    )
    assert (verdict.outcome, verdict.failure.retry_after) == (Outcome.RATE_LIMITED, 1.898)


def test_t13b_overload_by_two_events_with_two_codes():
    play = Play().feed(OPENED, created(), alive(2), StreamError(3, problem("server_is_overloaded"), "error_event"))
    play.feed(Terminal(4, "failed", problem=problem("server_error", retry_after=3.0)))
    assert (play.verdict.outcome, play.verdict.failure.retryable, play.verdict.failure.retry_after) == (
        Outcome.OVERLOADED,
        True,
        3.0,
    )


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("cut", Outcome.STREAM_CUT),
        ("clean", Outcome.STREAM_CUT),
        ("half_frame", Outcome.STREAM_CUT),
        ("bad_json", Outcome.PROTOCOL_ERROR),
    ],
)
def test_t14_a_stream_that_just_ends_is_never_completed(how, outcome):
    verdict = Play().feed(OPENED, created(), Delta(4, "Hel"), ItemDone(5, 0, MESSAGE), Closed(how)).verdict
    assert (verdict.outcome, verdict.resumable, verdict.first_output_seen, verdict.output) == (outcome, True, True, ())
    assert verdict.sequence == 5


def test_t14f_a_stream_that_hangs():
    play = Play().feed(OPENED, created(), Delta(4, "Hel")).wait(300)
    assert (play.verdict.outcome, play.verdict.resumable, play.verdict.flags) == (
        Outcome.IDLE_TIMEOUT,
        True,
        ("sequence_gap",),
    )


def test_t15_another_model_serves():
    play = Play().feed(
        Opened(200, served_header=LUNA), Served(LUNA), created(), *out(2), completed(model=LUNA, service_tier="flex")
    )
    verdict = play.verdict
    assert (verdict.outcome, verdict.served_model, verdict.service_tier) == (Outcome.COMPLETED, LUNA, "flex")
    assert "rerouted" in verdict.flags
    assert verdict.served_raw == {"requested": SOL, "header": LUNA, "created": SOL, "terminal": LUNA}


def test_t15b_two_snapshots_that_disagree():
    verdict = Play().feed(OPENED, created(), completed(model=TERRA)).verdict
    assert (verdict.served_model, verdict.flags) == (TERRA, ("model_conflict", "rerouted"))


def test_t15c_a_dated_name_is_the_same_model():
    dated = f"{SOL}-2026-07-09"
    verdict = Play().feed(OPENED, created(model=dated), completed(model=dated)).verdict
    assert (verdict.served_model, verdict.flags) == (SOL, ())


def test_t15_a_name_in_the_streams_own_headers_counts():
    verdict = Play().feed(OPENED, created(), Served(LUNA), completed(model=None)).verdict
    assert (verdict.served_model, "rerouted" in verdict.flags) == (LUNA, True)


def test_t17_a_resumed_stream_repeats_nothing():
    play = (
        Play().feed(OPENED, created(0, "queued"), created(1, "queued")).wait(3).feed(alive(2, "response.in_progress"))
    )
    play.feed(alive(3), alive(4), Delta(5, "Hel"))
    play.feed(Opened(200, "req_other", resumed=True))
    assert play.watch.delta(5, play.now) == "stale"
    assert play.watch.delta(6, play.now) is None
    play.feed(Delta(4, "stale"), ItemDone(9, 0, MESSAGE), completed(10))
    verdict = play.verdict
    assert (verdict.outcome, verdict.deltas_counted, verdict.request_id) == (Outcome.COMPLETED, 2, "req_sim01")


def test_t17d_a_queued_response_is_not_suspected_however_long_it_waits():
    play = Play(limits=WatchLimits(suspect_after=45, idle=100_000)).feed(OPENED, created(0, "queued")).wait(3600)
    assert not play.of(CheckStartedSignal)
    assert play.watch.silent_since is None
    play.feed(created(1, "in_progress")).wait(45)
    assert play.of(CheckStartedSignal) == [CheckStartedSignal(Evidence.SUSPECTED)]


def test_t17e_cancelled_upstream():
    assert Play().feed(OPENED, created(), Terminal(3, "cancelled")).verdict.outcome is Outcome.CANCELLED


def test_t17f_the_response_is_gone():
    verdict = Play().feed(OPENED, created(), Rejected(404, None, "req_2", on="poll")).verdict
    assert (verdict.outcome, verdict.http_status, verdict.request_id, verdict.resumable) == (
        Outcome.LOST,
        200,
        "req_sim01",
        False,
    )


def test_a_poll_that_fails_leaves_the_response_within_reach():
    assert Play().feed(OPENED, created(), Rejected(429, None, on="poll")).verdict.resumable


@pytest.mark.parametrize(
    "event",
    [
        Rejected(403, problem("misalignment_policy_violation")),
        Terminal(40, "failed", problem=problem("misalignment_policy_violation")),
    ],
)
def test_t18_misalignment(event):
    assert Play().feed(event).verdict.block.category == "misalignment"


def test_t19_chat_has_no_sequence_numbers():
    play = Play().feed(OPENED, created(None), Delta(None, "Hello."), Delta(None, ""), completed(None))
    assert (play.verdict.outcome, play.verdict.sequence) == (Outcome.COMPLETED, None)
    assert play.verdict.deltas_counted == 2  # six characters are about two tokens, however many deltas bring them


def test_t19b_chat_content_filter():
    play = Play().feed(
        OPENED,
        created(None),
        Delta(None, "a"),
        Terminal(None, "incomplete", incomplete_reason="content_filter", carrier="chat_chunk"),
    )
    assert (play.verdict.block.carrier, play.verdict.block.after_output) == ("chat_chunk", True)


def test_t19d_an_error_chunk_and_then_the_end():
    play = Play().feed(
        OPENED,
        created(None),
        Delta(None, "a"),
        StreamError(None, problem("cyber_policy"), "chat_chunk"),
        Closed("clean"),
    )
    assert (play.verdict.outcome, play.verdict.block.carrier) == (Outcome.BLOCKED, "chat_chunk")


def test_t19e_a_silent_delay_before_the_first_chunk():
    play = Play(limits=SUSPECT).feed(OPENED).wait(60).feed(created(None), Delta(None, "a"), completed(None))
    assert play.of(CheckStartedSignal, CheckEndedSignal) == [
        CheckStartedSignal(Evidence.SUSPECTED),
        CheckEndedSignal(CheckEnd.OUTPUT),
    ]


def test_t19g_a_chat_stream_without_its_last_word():
    verdict = Play().feed(OPENED, created(None), Delta(None, "a"), Closed("clean")).verdict
    assert (verdict.outcome, verdict.failure.code) == (Outcome.STREAM_CUT, "no_terminal")
