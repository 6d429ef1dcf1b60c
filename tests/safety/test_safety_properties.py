"""Whatever the provider sends, in whatever order and at whatever time."""

import math

from hypothesis import given, settings, strategies as st
from safety_builders import LUNA, MESSAGE, REFUSAL, SOL, TERRA, USAGE
from thorough import cases

from worker.jobs.states import DELIVERED, Outcome, RetryModelState
from worker.safety import codes
from worker.safety.signals import AttemptEnded, CheckEndedSignal, CheckStartedSignal, CheckUpdatedSignal, FirstOutput
from worker.safety.stream import (
    CheckNotice,
    Closed,
    Created,
    Delta,
    Flagged,
    ItemDone,
    Keepalive,
    Opened,
    PartDone,
    ProviderProblem,
    Rejected,
    Served,
    StreamError,
    Terminal,
)
from worker.safety.watch import AttemptWatch
from worker.safety.watch_limits import WatchLimits

SEQ = st.none() | st.integers(0, 30)
CODE = (
    st.none() | st.sampled_from([*codes.CODES, "brand_new", "new_policy", "invalid_request", ""]) | st.text(max_size=8)
)
PROBLEM = st.builds(
    ProviderProblem,
    CODE,
    CODE,
    st.none() | st.sampled_from(["stream", "access_programs.cyber"]),
    st.none() | st.floats(),
)
WORDS = st.lists(st.sampled_from(["cyber", "bio", "", "x" * 99]), max_size=3).map(tuple)
MODEL = st.none() | st.sampled_from([SOL, LUNA, TERRA, "", "two words"])
CARRIER = st.sampled_from(["error_event", "response_failed", "incomplete", "chat_chunk"])
ITEM = st.sampled_from([MESSAGE, REFUSAL, {}, {"content": 7}, {"content": [1, {"type": 2}]}])
REASON = st.none() | st.sampled_from(["max_output_tokens", "content_filter", "steered", "odd_policy"])

EVENTS = st.one_of(
    st.builds(Opened, st.just(200), MODEL, served_header=MODEL, resumed=st.booleans()),
    st.builds(Created, SEQ, MODEL, MODEL, st.sampled_from(["queued", "in_progress"])),
    st.builds(CheckNotice, SEQ, WORDS, WORDS, MODEL, st.sampled_from(RetryModelState), st.booleans()),
    st.builds(Delta, SEQ, st.sampled_from(["", "a"]), st.sampled_from(["text", "refusal", "other"])),
    st.builds(ItemDone, SEQ, st.integers(0, 3), ITEM),
    st.builds(PartDone, SEQ),
    st.builds(Keepalive, SEQ, st.sampled_from(["keepalive", "response.queued", "response.in_progress"])),
    st.builds(Served, st.sampled_from([SOL, LUNA])),
    st.builds(Flagged, WORDS),
    st.builds(StreamError, SEQ, PROBLEM, CARRIER),
)
LAST = st.one_of(
    st.builds(
        Rejected,
        st.integers(100, 599),
        st.none() | PROBLEM,
        on=st.sampled_from(["create", "resume", "poll"]),
        retry_after=st.none() | st.floats(),
    ),
    st.builds(
        Terminal,
        SEQ,
        st.sampled_from(["completed", "incomplete", "failed", "cancelled"]),
        MODEL,
        st.none() | st.just(USAGE),
        st.lists(ITEM, max_size=2).map(tuple),
        REASON,
        st.none() | PROBLEM,
        carrier=CARRIER,
    ),
    st.builds(
        Closed,
        st.sampled_from(["clean", "cut", "half_frame", "bad_json", "not_an_answer", "connect_failed", "lost"]),
        opened=st.booleans(),
    ),
)
FAST = st.tuples(st.just("fast"), SEQ)
STOP = st.tuples(
    st.just("stop"), st.sampled_from([Outcome.CANCELLED, Outcome.SUBSTITUTED, Outcome.INTERRUPTED, Outcome.TIMED_OUT])
)
STEPS = st.lists(
    st.tuples(
        EVENTS | EVENTS | EVENTS | EVENTS | LAST | FAST | STOP | st.just("tick"),
        st.sampled_from([0.0, 1.0, 50.0, 400.0]),
    ),
    max_size=25,
)


def play(steps, **limits):
    """Every signal of a run, and the watch."""
    watch, now, signals = (
        AttemptWatch(SOL, checked=True, now=0.0, limits=WatchLimits(suspect_after=45, **limits)),
        0.0,
        [],
    )
    for step, seconds in steps:
        now += seconds
        if step == "tick":
            signals += watch.tick(now)
        elif isinstance(step, tuple) and step[0] == "fast":
            if watch.delta(step[1], now) == "signals":
                signals += watch.take_signals()
        elif isinstance(step, tuple) and step[0] == "stop":
            signals += watch.stop(step[1])
        else:
            signals += watch.feed(step, now)
        assert (watch.next_tick() == math.inf) == (watch.verdict is not None)
    return watch, signals, now


@given(STEPS)
@settings(max_examples=cases(60, 250), deadline=None)
def test_any_stream_gives_nested_checks_and_at_most_one_end(steps):
    watch, signals, now = play(steps)
    ends = [s for s in signals if isinstance(s, AttemptEnded)]
    assert len(ends) <= 1
    assert not ends or signals[-1] is ends[0]
    assert len([s for s in signals if isinstance(s, FirstOutput)]) <= 1
    is_open, had_one = False, False
    for signal in signals:
        if isinstance(signal, CheckStartedSignal):
            assert not is_open
            is_open = had_one = True
        elif isinstance(signal, CheckEndedSignal):
            assert is_open
            is_open = False
        elif isinstance(signal, CheckUpdatedSignal):
            assert had_one
        elif isinstance(signal, AttemptEnded):
            assert not is_open
    assert is_open == (watch.evidence is not None)
    if not ends:  # left alone, every stream ends by the clock
        for _ in range(5):
            now = max(now, watch.next_tick())
            watch.tick(now)
            if watch.verdict is not None:
                break
        assert watch.verdict is not None


@given(STEPS)
@settings(max_examples=cases(60, 250), deadline=None)
def test_an_answer_needs_the_providers_last_word_and_a_verdict_is_sound(steps):
    watch, _, _ = play(steps)
    verdict = watch.verdict
    if verdict is None:
        return
    terminals = [s for s, _ in steps if isinstance(s, Terminal)]
    if verdict.outcome in DELIVERED:
        assert any(t.status in ("completed", "incomplete") for t in terminals)
        assert verdict.served_model
        assert verdict.failure is None
    else:
        assert verdict.output == ()
        assert not verdict.refused
        assert verdict.failure is not None or verdict.outcome in (
            Outcome.SUBSTITUTED,
            Outcome.CANCELLED,
            Outcome.INTERRUPTED,
        )
    assert (verdict.block is not None) == (verdict.outcome is Outcome.BLOCKED)
    if verdict.failure is not None:
        assert verdict.failure.outcome is verdict.outcome
        assert not (verdict.block and verdict.failure.retryable)
    assert not (verdict.resumable and verdict.response_id is None)


@given(
    st.lists(st.tuples(EVENTS, st.just(0.0)), max_size=10),
    st.sampled_from(["cyber_policy", "bio_policy", "invalid_prompt"]),
    st.lists(st.tuples(EVENTS, st.just(0.0)), max_size=6),
    LAST,
    SEQ,
)
@settings(max_examples=cases(50, 200), deadline=None)
def test_a_block_code_anywhere_makes_it_blocked(before, code, after, last, sequence):
    before = [(e, t) for e, t in before if not (isinstance(e, Opened) and e.resumed)]  # else it may be a stale repeat
    _, signals, _ = play(
        [*before, (StreamError(sequence, ProviderProblem(code, None), "error_event"), 0.0), *after, (last, 0.0)]
    )
    assert signals[-1].verdict.outcome is Outcome.BLOCKED


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_after_a_resume_every_delta_is_heard_exactly_once(cut, back):
    watch = AttemptWatch(SOL, checked=False, now=0.0)
    read_deltas = [n for n in range(cut + 1) if watch.delta(n, 0.0) != "stale"]
    watch.feed(Opened(200, resumed=True), 1.0)
    read_deltas += [n for n in range(max(0, cut - back), 45) if watch.delta(n, 1.0) != "stale"]
    assert read_deltas == list(range(45))
