"""The watch's own rules: checks as intervals, limits, held errors, the fast path, ends by our own doing."""

import math

import pytest
from safety_builders import (
    ABSENT,
    LUNA,
    NAMED,
    NONE,
    OPENED,
    Play,
    alive,
    completed,
    created,
    notice,
    problem,
)

from worker.jobs.states import CheckEnd, Evidence, Outcome
from worker.safety.signals import (
    AttemptEnded,
    CheckEndedSignal,
    CheckStartedSignal,
    CheckUpdatedSignal,
    FirstOutput,
    ResponseKnown,
)
from worker.safety.stream import CheckNotice, Closed, Delta, Opened, PartDone, Rejected, StreamError, Terminal
from worker.safety.watch import AttemptWatch
from worker.safety.watch_limits import WatchLimits

STARTED = (OPENED, created())
SIGNALLED, SUSPECTED = Evidence.SIGNALLED, Evidence.SUSPECTED


# -- checks


def test_more_said_of_an_open_check_is_a_change_and_the_same_again_is_a_repeat():
    play = Play().feed(
        *STARTED,
        notice(),
        notice(),
        notice(use_cases=("cyber", "bio")),
        notice(use_cases=("cyber", "bio")),
        Delta(9, "a"),
    )
    assert play.of(CheckStartedSignal, CheckUpdatedSignal, CheckEndedSignal) == [
        CheckStartedSignal(SIGNALLED, ("cyber",), ("user_risk",), LUNA, NAMED),
        CheckUpdatedSignal(SIGNALLED, ("cyber", "bio"), ("user_risk",), LUNA, NAMED, 1),
        CheckEndedSignal(CheckEnd.OUTPUT, 2),
    ]


def test_an_absent_retry_model_keeps_the_one_named_before_and_null_takes_it_away():
    play = Play().feed(
        *STARTED,
        notice(state=ABSENT),
        notice(),
        notice(state=ABSENT),
        notice(state=NONE),
        Delta(9, "a"),
        notice(state=ABSENT),
    )
    retry_models = [(s.retry_model, s.retry_model_state) for s in play.of(CheckStartedSignal, CheckUpdatedSignal)]
    assert retry_models == [(None, ABSENT), (LUNA, NAMED), (None, NONE), (None, NONE)]


def test_a_later_notice_opens_a_second_check():
    play = Play().feed(*STARTED, notice(1), Delta(2, "a"), notice(3)).wait(5)
    assert play.watch.evidence is not None
    assert play.watch.evidence is SIGNALLED
    play.feed(PartDone(4))
    assert [type(s) for s in play.of(CheckStartedSignal, CheckEndedSignal)] == [
        CheckStartedSignal,
        CheckEndedSignal,
    ] * 2
    assert play.watch.evidence is None


def test_a_notice_riding_on_output_with_news_is_a_check_without_length():
    play = Play().feed(*STARTED, Delta(2, "a"), notice(3, piggybacked=True), Delta(3, "b"))
    assert play.of(CheckStartedSignal, CheckEndedSignal) == [
        CheckStartedSignal(SIGNALLED, ("cyber",), ("user_risk",), LUNA, NAMED),
        CheckEndedSignal(CheckEnd.OUTPUT, 0),
    ]


def test_late_repeats_are_told_before_the_next_check_begins():
    play = Play().feed(
        *STARTED,
        notice(1),
        notice(2, piggybacked=True),
        Delta(2, "a"),
        notice(3, piggybacked=True),
        Delta(3, "b"),
        notice(4, use_cases=("bio",)),
    )
    assert [
        (type(s), getattr(s, "repeats", None))
        for s in play.of(CheckStartedSignal, CheckUpdatedSignal, CheckEndedSignal)
    ] == [
        (CheckStartedSignal, None),
        (CheckEndedSignal, 1),
        (CheckUpdatedSignal, 2),
        (CheckStartedSignal, None),
    ]


def test_what_the_provider_says_of_a_check_is_cut_to_size():
    many = tuple(f"case {n} " + "x" * 100 for n in range(20))
    play = Play().feed(*STARTED, CheckNotice(1, many, ("a\nb", "a\nb", " "), "not a model name", NAMED))
    (began,) = play.of(CheckStartedSignal)
    assert len(began.use_cases) == 8
    assert {len(case) for case in began.use_cases} == {64}
    assert began.reasons == ("ab",)
    assert (began.retry_model, began.retry_model_state) == (None, ABSENT)


def test_a_suspected_check_becomes_signalled_and_keeps_its_beginning():
    play = Play(limits=WatchLimits(suspect_after=45)).feed(*STARTED).wait(45)
    play.wait(10).feed(notice(1))
    assert play.of(CheckStartedSignal, CheckUpdatedSignal) == [
        CheckStartedSignal(SUSPECTED),
        CheckUpdatedSignal(SIGNALLED, ("cyber",), ("user_risk",), LUNA, NAMED, 0),
    ]


def test_an_empty_notice_after_a_suspicion_is_still_a_signal():
    play = (
        Play(limits=WatchLimits(suspect_after=45))
        .feed(*STARTED)
        .wait(45)
        .feed(Delta(1, "a"), CheckNotice(2, piggybacked=True), Delta(2, "b"))
    )
    assert [s.evidence for s in play.of(CheckStartedSignal)] == [SUSPECTED, SIGNALLED]


def test_silence_after_output_is_suspected_too():
    play = Play(limits=WatchLimits(suspect_after=45)).feed(*STARTED, Delta(1, "a")).wait(44)
    assert not play.of(CheckStartedSignal)
    assert play.watch.silent_since == play.now - 44
    assert play.wait(1).of(CheckStartedSignal)


@pytest.mark.parametrize(("checked", "after"), [(False, 45.0), (True, None)])
def test_silence_is_not_suspected_where_nobody_asked(checked, after):
    play = Play(checked=checked, limits=WatchLimits(suspect_after=after)).feed(*STARTED).wait(299)
    assert not play.of(CheckStartedSignal)


def test_headers_of_the_account_are_no_check():
    play = Play().feed(Opened(200, context={"x-codex-safety-buffering-enabled": "true"}), created(), completed())
    assert not play.of(CheckStartedSignal)


def test_a_block_ends_the_check_at_once_and_no_notice_reopens_it():
    play = Play().feed(*STARTED, notice(1), StreamError(2, problem("cyber_policy"), "error_event"))
    assert play.of(CheckEndedSignal) == [CheckEndedSignal(CheckEnd.BLOCKED, 0)]
    assert len(play.feed(notice(3)).of(CheckStartedSignal)) == 1


@pytest.mark.parametrize(
    ("event", "ended_by"),
    [
        (completed(), CheckEnd.COMPLETED),
        (Terminal(5, "failed", problem=problem("server_error")), CheckEnd.FAILED),
        (Terminal(5, "cancelled"), CheckEnd.CANCELLED),
        (Closed("cut"), CheckEnd.FAILED),
        (Closed("lost"), CheckEnd.LOST),
        (Rejected(400, problem("bio_policy"), on="poll"), CheckEnd.BLOCKED),
    ],
)
def test_whatever_ends_the_attempt_ends_its_check(event, ended_by):
    assert Play().feed(*STARTED, notice(1), event).of(CheckEndedSignal) == [CheckEndedSignal(ended_by, 0)]


# -- limits


def test_nothing_at_all_is_told_apart_from_silence_later():
    verdict = Play(limits=WatchLimits(first_event=20)).wait(20).verdict
    assert (verdict.outcome, verdict.failure.code, verdict.resumable) == (Outcome.IDLE_TIMEOUT, "no_first_event", False)
    assert Play(limits=WatchLimits(idle=20)).feed(*STARTED).wait(20).verdict.failure.code == "idle_timeout"


def test_keepalives_are_life():
    play = Play(limits=WatchLimits(idle=20)).feed(*STARTED)
    for n in range(1, 20):
        play.wait(19).feed(alive(n))
    assert not play.of(AttemptEnded)


def test_a_signalled_check_may_be_silent_for_longer():
    play = Play(limits=WatchLimits(idle=100, check_idle=600)).feed(*STARTED, notice(1)).wait(599)
    assert not play.of(AttemptEnded)
    verdict = play.wait(1).verdict
    assert (verdict.outcome, verdict.flags) == (Outcome.IDLE_TIMEOUT, ("in_check",))
    assert play.of(CheckEndedSignal) == [CheckEndedSignal(CheckEnd.TIMED_OUT, 0)]


def test_a_suspected_check_gets_no_extra_time():
    play = Play(limits=WatchLimits(idle=100, check_idle=600, suspect_after=45)).feed(*STARTED).wait(100)
    assert (play.verdict.outcome, play.verdict.flags) == (Outcome.IDLE_TIMEOUT, ("in_check",))


def test_after_the_end_no_tick_is_asked_for():
    play = Play().feed(*STARTED, completed())
    assert play.watch.next_tick() == math.inf
    assert play.watch.tick(1e9) == []
    assert play.watch.silent_since is None


# -- held errors


def test_an_error_event_without_a_last_word_stands_alone_after_a_while():
    play = Play().feed(*STARTED, StreamError(1, problem("server_is_overloaded"), "error_event"), alive(2)).wait(14)
    assert not play.of(AttemptEnded)
    assert play.wait(1).verdict.outcome is Outcome.OVERLOADED


def test_an_error_event_is_not_the_end_while_the_stream_goes_on():
    play = (
        Play()
        .feed(*STARTED, StreamError(1, problem("server_is_overloaded"), "error_event"))
        .wait(10)
        .feed(Delta(2, "a"))
        .wait(10)
    )
    assert not play.of(AttemptEnded)
    verdict = play.feed(completed(3)).verdict
    assert (verdict.outcome, verdict.flags) == (Outcome.COMPLETED, ("terminal_conflict",))


@pytest.mark.parametrize(
    "event",
    [
        completed(),
        Terminal(9, "incomplete"),
        Terminal(9, "cancelled"),
        Terminal(9, "failed"),
        Closed("clean"),
        Rejected(500, None, on="resume"),
    ],
)
def test_nothing_that_comes_after_a_block_takes_it_back(event):
    play = Play().feed(*STARTED, StreamError(1, problem("bio_policy"), "error_event"), Delta(2, "a"), event)
    assert (play.verdict.outcome, play.verdict.block.category, play.verdict.output) == (Outcome.BLOCKED, "bio", ())
    assert not play.verdict.block.after_output


def test_a_block_stands_though_the_stream_hangs_or_goes_on():
    play = (
        Play().feed(*STARTED, StreamError(1, problem("bio_policy"), "error_event")).wait(10).feed(Delta(2, "a")).wait(5)
    )
    assert play.verdict.outcome is Outcome.BLOCKED


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("server_error", "server_is_overloaded", Outcome.OVERLOADED),
        ("server_is_overloaded", "server_error", Outcome.OVERLOADED),
        ("server_is_overloaded", "rate_limit_exceeded", Outcome.OVERLOADED),
        ("brand_new", "rate_limit_exceeded", Outcome.RATE_LIMITED),
        ("server_is_overloaded", "cyber_policy", Outcome.BLOCKED),
        (None, "insufficient_quota", Outcome.QUOTA_EXHAUSTED),
    ],
)
def test_the_code_that_tells_most_wins_and_among_equals_the_first(first, second, outcome):
    for last in (Terminal(2, "failed", problem=problem(second)), StreamError(2, problem(second), "error_event")):
        play = Play().feed(*STARTED, StreamError(1, problem(first), "error_event"), last, Closed("clean"))
        assert play.verdict.outcome is outcome


def test_a_known_block_gives_its_category_to_a_guessed_one():
    play = Play().feed(
        *STARTED,
        StreamError(1, problem("new_policy"), "error_event"),
        Terminal(2, "failed", problem=problem("cyber_policy")),
    )
    assert (play.verdict.block.category, play.verdict.block.carrier) == ("cyber", "response_failed")


def test_a_response_that_failed_is_not_resumable_though_the_connection_broke():
    assert (
        not Play()
        .feed(*STARTED, StreamError(1, problem("server_error"), "error_event"), Closed("cut"))
        .verdict.resumable
    )


def test_an_idle_stream_with_a_held_error_ends_by_that_error():
    play = (
        Play(limits=WatchLimits(idle=5, after_fault=60))
        .feed(*STARTED, StreamError(1, problem("server_is_overloaded"), "error_event"))
        .wait(5)
    )
    assert play.verdict.outcome is Outcome.OVERLOADED


# -- after the end


def test_a_second_last_word_changes_nothing_and_leaves_a_flag():
    play = Play().feed(*STARTED, completed(), Terminal(10, "failed", problem=problem("server_error")), completed())
    assert play.verdict.outcome is Outcome.COMPLETED
    assert play.watch.verdict.flags == ("late_events", "terminal_conflict")
    assert play.watch.late_events == 2
    assert play.watch.delta(11, play.now) == "late"
    assert play.watch.take_signals() == []


# -- the fast path


def test_the_fast_path_speaks_only_when_something_changed():
    play = Play().feed(*STARTED)
    watch, now = play.watch, play.now
    assert watch.delta(1, now) == "signals"
    assert watch.take_signals() == [FirstOutput()]
    assert watch.delta(2, now) is None
    play.feed(notice(3))
    assert watch.delta(4, now) == "signals"
    assert watch.take_signals() == [CheckEndedSignal(CheckEnd.OUTPUT, 0)]
    assert watch.delta(5, now) is None
    assert (watch.deltas, watch.sequence, watch.output_seen) == (4, 5, True)


def test_a_delta_may_be_the_first_thing_of_all():
    play = Play()
    assert play.watch.delta(None, play.now) == "signals"
    assert play.watch.take_signals() == [ResponseKnown(first_event=True), FirstOutput()]
    assert play.watch.sequence is None


def test_a_jump_in_the_numbers_is_flagged_and_nothing_more():
    play = Play().feed(*STARTED)
    play.watch.delta(5, play.now)
    play.watch.delta(5, play.now)  # several events of one frame share a number
    assert play.feed(completed(6)).verdict.flags == ("sequence_gap",)


def test_a_watch_that_takes_up_a_dead_workers_attempt_knows_what_was_seen():
    play = Play(cursor=5, output_seen=True, limits=WatchLimits(suspect_after=45)).feed(
        Opened(200, "req_2", resumed=True)
    )
    assert play.watch.delta(5, play.now) == "stale"
    assert play.watch.sequence == 5
    play.wait(45)
    assert play.of(CheckStartedSignal)
    play.feed(StreamError(6, problem("cyber_policy"), "error_event"), Closed("clean"))
    assert play.verdict.block.after_output
    assert not play.of(FirstOutput)


def test_the_estimate_follows_the_text_and_not_only_the_number_of_deltas():
    watch = AttemptWatch("gpt-5.6-sol", checked=False, now=0.0)
    watch.delta(1, 1.0, 4_000)
    watch.feed(Delta(2, "x" * 400, "other"), 1.0)
    watch.stop(Outcome.CANCELLED)
    assert watch.verdict is not None
    assert watch.verdict.deltas_counted == 1_100
