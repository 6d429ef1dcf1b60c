"""How long silence is usual for a model, measured from calls that were not held."""

from __future__ import annotations

import pytest
from safety_builders import Play

from tests.safety.safety_builders import OPENED, completed, created
from worker.safety.hold_times import bound_of, bucket_of
from worker.safety.silence import HIGHEST_S, LOWEST_S, MARGIN, MIN_SAMPLES, Silences, suspect_after
from worker.safety.stream import Delta
from worker.safety.watch_limits import WatchLimits

START = 120.0


def counts(**seconds):
    """Return counts by bucket of durations such as `s40=3`: three of forty seconds."""
    return {bucket_of(float(name[1:])): count for name, count in seconds.items()}


def test_too_few_calls_say_nothing():
    few = Silences(counts(s5=MIN_SAMPLES - 1))
    assert (few.usual_seconds(), suspect_after(few, START)) == (None, START)


def test_one_of_a_hundred_may_be_silent_for_longer():
    usual = Silences(counts(s5=100, s40=98, s300=2))
    assert usual.usual_seconds() == bound_of(bucket_of(40))
    assert suspect_after(usual, START) == pytest.approx(bound_of(bucket_of(40)) * MARGIN)
    slow = Silences(counts(s5=100, s40=96, s300=4))
    assert suspect_after(slow, START) == pytest.approx(bound_of(bucket_of(300)) * MARGIN)


def test_it_has_bounds():
    assert suspect_after(Silences(counts(s1=500)), START) == LOWEST_S
    assert suspect_after(Silences(counts(s5000=500)), START) == HIGHEST_S


@pytest.mark.parametrize("held", [5, 20, 60])
def test_held_calls_never_make_the_usual_silence_longer(held):
    free = Silences(counts(s5=100, s40=100))
    mixed = Silences(counts(s5=100, s40=100), counts(s240=held))
    assert mixed.usual_seconds() == free.usual_seconds()
    assert suspect_after(mixed, START) == suspect_after(free, START)


def test_where_most_calls_are_suspected_the_model_has_become_slower():
    slower = Silences(counts(s20=200), counts(s100=100))
    assert suspect_after(slower, START) == START


@pytest.mark.parametrize(
    ("waits", "longest"),
    [((7, 1, 1), 7), ((1, 9, 1), 9), ((1, 1, 30), 30)],
)
def test_the_longest_silence_is_before_between_or_after_the_output(waits, longest):
    play = Play(limits=WatchLimits(suspect_after=None)).feed(OPENED, created(0))
    play.wait(waits[0]).feed(Delta(1, "a")).wait(waits[1])
    play.watch.delta(2, play.now)
    verdict = play.wait(waits[2]).feed(completed(3)).verdict
    assert verdict.longest_silence == longest


def test_time_in_the_providers_queue_is_no_silence():
    play = Play().feed(OPENED, created(0, "queued")).wait(50).feed(created(1, "in_progress")).wait(2)
    assert play.feed(Delta(2, "a"), completed(3)).verdict.longest_silence == 2


def test_a_call_that_another_worker_began_is_not_measured():
    play = Play(cursor=5, event_seen=True).feed(OPENED).wait(60).feed(Delta(6, "a"), completed(7))
    assert play.verdict.longest_silence is None
