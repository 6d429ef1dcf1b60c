"""The times of a record are true: first means first, nothing ends before it began, whatever the writers' clocks say."""

from datetime import timedelta
from itertools import pairwise

from builders import JOB, STARTED, T0, any_draft, began, candidates, done, legal, life, queued
from hypothesis import HealthCheck, given, settings, strategies as st
from thorough import cases

from worker.jobs import events as ev, fold
from worker.jobs.record import Job
from worker.jobs.states import CheckEnd, Evidence
from worker.jobs.view import job_view

# each worker's clock may differ by hours, and an event that is told late was seen earlier
offsets = st.integers(-7200, 7200).map(lambda seconds: timedelta(seconds=seconds))


_CALLS = (ev.Started, ev.AttemptStarted, ev.AttemptFinished, ev.CheckStarted, ev.CheckEnded, ev.ModelSubstituted)


def in_order(*times: object) -> bool:
    known = [time for time in times if time is not None]
    return all(before <= after for before, after in pairwise(known))


def check_times(job: Job) -> None:
    """Fail if a time of the record is before what it follows."""
    assert in_order(job.created_at, job.started_at, job.finished_at, job.content_removed_at)
    assert in_order(job.created_at, job.cancel_requested_at, job.finished_at)
    assert in_order(job.created_at, job.disclosure and job.disclosure.at, job.finished_at)
    assert in_order(job.created_at, job.hold and job.hold.since)
    assert in_order(job.started_at, job.offer and job.offer.since)
    for attempt in job.attempts:
        output = attempt.first_output_at
        assert in_order(job.created_at, job.started_at, attempt.started_at, attempt.first_event_at, output)
        assert in_order(attempt.started_at, attempt.first_event_at, output, attempt.finished_at, job.finished_at)
        assert output is None or attempt.first_event_at is not None, "output is an event"
    for check in job.checks:
        attempt = job.attempt(check.attempt)
        assert in_order(attempt.started_at, check.started_at, check.ended_at, attempt.finished_at, job.finished_at)
        assert check.ended_at is None or (check.ended_at - check.started_at).total_seconds() >= 0
    for number in range(1, len(job.attempts) + 1):
        spans = [(check.started_at, check.ended_at) for check in job.checks if check.attempt == number]
        assert in_order(*(time for span in spans for time in span)), "checks of one attempt do not overlap"


@settings(deadline=None, max_examples=cases(100, 1500), suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_time_follows_what_it_follows_in_any_life(data):
    job = fold.apply(None, ev.event(1, T0, JOB, queued()))
    firsts: dict[int, tuple[object, object]] = {}
    for _ in range(data.draw(st.integers(1, 25))):
        at, seen = T0 + data.draw(offsets), T0 + data.draw(offsets)
        goes_on = data.draw(st.integers(0, 9)) > 0 and not job.settled  # most lives are long
        fitting = [draft for draft in candidates(job, seen) if legal(job, draft)]
        if goes_on:
            fitting = [draft for draft in fitting if not isinstance(draft[0], ev.TERMINAL_FACTS)]
        updates = [
            (ev.AttemptUpdated(**{name: seen}), attempt.number)
            for attempt in job.open_attempts
            for name in ("first_event_at", "first_output_at")
        ]
        calls = [draft for draft in fitting if isinstance(draft[0], _CALLS)]
        pools = [pool for pool in (fitting, calls, updates) if pool]
        draft = data.draw(st.sampled_from(pools).flatmap(st.sampled_from) if pools else any_draft)
        if not legal(job, draft):
            continue
        before, job = job, fold.apply(job, ev.event(job.version + 1, at, JOB, *draft))
        check_times(job)
        assert before.started_at in {None, job.started_at}
        for attempt in job.attempts:
            known = firsts.get(attempt.number, (None, None))
            assert known[1] in {None, attempt.first_output_at}, "the first output stays the first"
            assert known[0] in {None, attempt.first_event_at}, "the first event stays the first"
            firsts[attempt.number] = (attempt.first_event_at, attempt.first_output_at)
        for check in job_view(job, {}, None, None, "")["safety"]["checks"]:
            assert check["seconds"] is None or check["seconds"] >= 0


def test_a_resumed_stream_without_output_yet_keeps_its_first_event():
    early, late = T0 + timedelta(seconds=5), T0 + timedelta(seconds=50)
    updates = [(ev.AttemptUpdated(first_event_at=at), 1) for at in (early, late)]
    assert life(STARTED, (began(), 1), *updates)[0].attempt(1).first_event_at == early


def test_a_resumed_stream_changes_no_first_time():
    early, late = T0 + timedelta(seconds=5), T0 + timedelta(seconds=50)
    job, _ = life(
        STARTED,
        (began(), 1),
        (ev.AttemptUpdated(first_event_at=early, first_output_at=early), 1),
        (ev.Interrupted(worker="w1"), None),
        STARTED,
        (ev.AttemptUpdated(first_event_at=late, resumed=1), 1),
        (done(first_output_at=late), 1),
    )
    attempt = job.attempt(1)
    assert (attempt.first_event_at, attempt.first_output_at, attempt.resumed) == (early, early, 1)


def test_a_record_of_an_earlier_release_is_put_in_order_with_the_next_event():
    early, late = T0 + timedelta(seconds=5), T0 + timedelta(seconds=50)
    job, _ = life(STARTED, (began(), 1))
    wrong = job.attempt(1).evolve(first_event_at=late, first_output_at=early)
    job = fold.apply(
        job.evolve(attempts=(wrong,)), ev.event(job.version + 1, late, JOB, ev.AttemptUpdated(resumed=1), 1)
    )
    assert job.attempt(1).first_event_at == early


def test_a_check_that_a_slower_clock_ends_lasted_no_time():
    job, trail = life(STARTED, (began(), 1), (ev.CheckStarted(evidence=Evidence.SIGNALLED), 1))
    ended = ev.CheckEnded(ended_by=CheckEnd.OUTPUT)
    job = fold.apply(job, ev.event(job.version + 1, T0 - timedelta(hours=1), JOB, ended, 1))
    assert job.checks[0].ended_at == job.checks[0].started_at
    assert job_view(job, {}, None, None, "")["safety"]["checks"][0]["seconds"] == 0
    assert len(trail) == 4
