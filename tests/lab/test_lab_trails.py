"""A trail becomes cases: the original's course if it ran to its end, a count if it did not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st
from lab_cases import LUNA, NAMED, SOL, T0, Trail, one

from worker.jobs import events as ev
from worker.jobs.spec import OnDelay, Policy
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, RetryModelState
from worker.lab import trails
from worker.lab.model import BadTrail, CheckSpan


def only(trail, **more):
    found = trails.read(trail.lines, "t", **more)
    assert len(found.cases) == 1
    return found.cases[0]


def plain():
    """A call of 100 s: the notice at 2 s, the first output at 82 s."""
    trail = Trail().begin().say(1, ev.AttemptUpdated(first_event_at=T0.replace(second=1)), 1)
    trail.check(2, 82, retry_model=LUNA, retry_model_state=NAMED)
    trail.say(82, ev.AttemptUpdated(first_output_at=T0.replace(minute=1, second=22)), 1)
    return trail.end(100)


def test_the_course_of_the_original():
    case = only(plain())
    assert (case.model, case.end, case.blocked) == (SOL, 100.0, False)
    assert case.holds == (CheckSpan(2.0, 82.0, LUNA, NAMED),)
    assert case.silences == ((1.0, 82.0),)
    assert (case.input_tokens, case.output_tokens, case.faster_tokens) == (100, 200, 200)
    assert case.faster_seconds == pytest.approx(0.4 * 20)


def test_what_the_rule_would_have_done_to_it():
    assert one(only(plain()), "switch").wait_p50 == pytest.approx(42 + 8)


def test_a_part_of_the_time_that_the_user_names():
    assert only(plain(), faster_takes=0.5).faster_seconds == pytest.approx(10)


def test_a_faster_attempt_that_really_ran_knows_better():
    trail = Trail().begin().begin(40, 2, Purpose.DRAFT, LUNA).end(52, number=2, written=50).end(100)
    case = only(trail)
    assert (case.faster_seconds, case.faster_tokens, case.end) == (12.0, 50, 100.0)


def test_the_last_attempt_that_no_rule_started_is_the_original():
    trail = Trail().begin().end(5, Outcome.OVERLOADED).begin(10, 2, Purpose.RETRY).end(40, number=2)
    assert only(trail).end == 30.0


def test_a_blocked_original_is_a_blocked_case():
    trail = Trail().begin().check(1, 36, CheckEnd.BLOCKED).end(36, Outcome.BLOCKED)
    assert only(trail).blocked


def test_a_suspected_check_is_silence_until_it_is_signalled():
    trail = Trail().begin().check(50, 80, evidence=Evidence.SUSPECTED).end(100)
    assert only(trail).holds == ()
    trail = Trail().begin().say(50, ev.CheckStarted(evidence=Evidence.SUSPECTED), 1)
    trail.say(60, ev.CheckUpdated(evidence=Evidence.SIGNALLED, retry_model_state=RetryModelState.NONE), 1)
    trail.say(70, ev.CheckUpdated(evidence=Evidence.SIGNALLED), 1)
    trail.say(80, ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1).end(100)
    assert only(trail).holds == (CheckSpan(60.0, 80.0, None, RetryModelState.NONE),)


def test_silence_in_mid_output_began_before_it_was_suspected():
    rule = Policy(on_delay=OnDelay(silence_seconds=30.0))
    trail = Trail().say(0, ev.Queued(app="a", key_id="k", requested_model=SOL, policy=rule)).begin()
    trail.say(5, ev.AttemptUpdated(first_output_at=T0.replace(second=5)), 1)
    trail.check(60, 80, evidence=Evidence.SUSPECTED).end(100)
    assert only(trail).silences == ((0.0, 5.0), (30.0, 80.0))


def test_jobs_whose_course_is_not_known_are_left_out_and_counted():
    trail = plain()
    trail.begin(job="job_2").end(9, Outcome.SUBSTITUTED, job="job_2")
    trail.begin(job="job_3").end(9, Outcome.CANCELLED, job="job_3")
    trail.begin(job="job_4").end(9, Outcome.SERVER_ERROR, job="job_4")
    trail.begin(job="job_5")
    trail.say(0, ev.Queued(app="a", key_id="k", requested_model=SOL), job="job_6")
    found = trails.read(trail.lines, "t")
    assert len(found.cases) == 1
    assert found.left_out == (("cut_short", 2), ("failed", 1), ("not_started", 1), ("unfinished", 1))


def test_a_record_may_stand_beside_its_hash_and_unknown_events_are_passed_over():
    lines = [json.dumps({"record": json.loads(line), "hash": "0" * 64}) for line in plain().lines]
    other = {"type": "job.new.thing", "at": "2026-07-10T12:00:00Z", "job_id": "job_1", "attempt": 1, "data": {}}
    assert trails.read([*lines, "", json.dumps(other)], "t").cases == trails.read(plain().lines, "t").cases


def test_the_same_trail_gives_the_same_cases():
    assert trails.read(plain().lines, "t", seed=3) == trails.read(plain().lines, "t", seed=3)


USED = {"outcome": "completed", "usage": {"input_tokens": -1}}
GOOD = {"type": "job.attempt.started", "at": "2026-07-10T12:00:00Z", "job_id": "j", "attempt": 1}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no json", "t, line 1: not JSON"),
        ("[" * 100_000, "t, line 1: not JSON"),
        ("[]", "t, line 1: not an audit record"),
        ('{"seq": 1}', "t, line 1: not an audit record"),
        (json.dumps({**GOOD, "data": {}}), "t, line 1: not an audit record"),
        (json.dumps({**GOOD, "data": {"model": 5, "purpose": "original"}}), "t, line 1: not an audit record"),
        (json.dumps({**GOOD, "data": {"model": "m", "purpose": "fun"}}), "t, line 1: not an audit record"),
        (json.dumps({**GOOD, "at": "yesterday", "data": {}}), "t, line 1: not an audit record"),
        ("", "t: there is no audit record in it"),
    ],
)
def test_bad_lines_are_named(line, words):
    with pytest.raises(BadTrail) as caught:
        trails.read([line], "t")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_a_number_that_can_not_be_is_named():
    finished = {**GOOD, "type": "job.attempt.finished", "data": USED}
    with pytest.raises(BadTrail, match="line 2"):
        trails.read([Trail().begin(job="j").lines[0], json.dumps(finished)], "t")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.integers(0, 5), st.sampled_from(["at", "job_id", "attempt", "data", "type"]), JSON)
def test_whatever_stands_in_a_record_it_is_read_or_named(number, name, value):
    records = [json.loads(line) for line in plain().lines]
    records[number][name] = value
    check_read(records)


@given(st.integers(0, 5), st.data(), JSON)
def test_whatever_stands_in_its_data_it_is_read_or_named(number, data, value):
    records = [json.loads(line) for line in plain().lines]
    names = sorted(records[number]["data"])
    records[number]["data"][data.draw(st.sampled_from(names))] = value
    check_read(records)


def check_read(records):
    try:
        found = trails.read([json.dumps(record) for record in records], "t")
    except BadTrail:
        return
    for case in found.cases:
        assert one(case, "race").jobs == 1
