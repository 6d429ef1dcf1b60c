"""The fold under any sequence of events: it folds or refuses, keeps the promises, and a trail gives its record."""

import contextlib

from builders import (
    JOB,
    T0,
    any_draft,
    candidates,
    keeps_its_promises,
    policies,
    queued,
    trails,
)
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from thorough import cases

from worker.jobs import events as ev, fold
from worker.jobs.errors import AlreadySettled, IllegalEvent
from worker.jobs.record import Job
from worker.jobs.states import TRANSITIONS, Outcome

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
firsts = st.builds(queued, policy=policies) | st.just(queued())


def born(first: ev.Queued) -> Job:
    return fold.apply(None, ev.event(1, T0, JOB, first))


def lived(data: st.DataObject, most: int = 25) -> tuple[Job, list[ev.Event]]:
    """A life of steps that mostly fit; the record and its trail."""
    first = ev.event(1, T0, JOB, data.draw(firsts))
    job, trail = fold.apply(None, first), [first]
    for _ in range(data.draw(st.integers(0, most))):
        job, new = trails(job, [data.draw(st.sampled_from(candidates(job)) | any_draft)])
        trail += new
    return job, trail


@settings(QUIET, max_examples=cases(60, 300))
@given(st.data())
def test_any_event_folds_or_is_refused_and_nothing_else(data):
    job, _ = lived(data, 12)
    fact, attempt = data.draw(any_draft)
    seq = data.draw(st.just(job.version + 1) | st.integers(-1, 40))
    event = ev.event(seq, T0, JOB, fact, attempt)
    try:
        after = fold.apply(job, event)
    except AlreadySettled:
        assert job.settled
    except IllegalEvent:
        assert not job.settled
    else:
        assert after.version == seq == job.version + 1


@QUIET
@given(st.lists(st.tuples(any_draft, st.integers(-1, 5)), max_size=5))
def test_any_heap_of_events_folds_or_is_refused(heap):
    trail = [ev.event(seq, T0, JOB, *draft) for draft, seq in heap]
    with contextlib.suppress(IllegalEvent, AlreadySettled):
        fold.replay(trail)


@settings(QUIET, max_examples=cases(40, 200))
@given(st.data())
def test_every_life_keeps_the_promises_at_every_step(data):
    _, trail = lived(data)
    job, before = None, None
    for number, event in enumerate(trail, 1):
        before, job = job, fold.apply(job, event)
        keeps_its_promises(job)
        assert job.version == event.seq == number, "seq is without a gap"
        if before is not None and before.status is not job.status:
            assert job.status in TRANSITIONS[before.status]


@QUIET
@given(st.data())
def test_replaying_the_trail_gives_the_record_even_after_the_wire(data):
    job, trail = lived(data)
    assert fold.replay(trail) == job
    assert fold.replay([ev.Event.load(event.dump()) for event in trail]) == job
    assert Job.model_validate_json(job.model_dump_json()) == job


@QUIET
@given(st.data())
def test_terminal_is_terminal(data):
    job, _ = lived(data)
    assume(job.settled)
    after, new = trails(job, [data.draw(any_draft), *candidates(job)])
    assert [event.type for event in new] == [] if job.content_removed else [ev.ContentRemoved.TYPE]
    removed = {"version", "content_removed", "content_removed_at"}
    assert after.model_dump(exclude=removed) == job.model_dump(exclude=removed)


@settings(QUIET, max_examples=cases(40, 200))
@given(st.data(), st.lists(any_draft, max_size=6))
def test_after_a_block_nothing_is_tried_and_nothing_is_delivered(data, wild):
    """Promise P2: whatever is said after a blocked attempt, no attempt starts, no answer and no draft goes out."""
    never = {ev.AttemptStarted.TYPE, ev.Completed.TYPE, ev.DraftReady.TYPE}
    job, _ = trails(born(queued()), [(ev.Started(worker="w", generation=1), None)])
    for _ in range(data.draw(st.integers(1, 3))):  # as many calls at once as a race has
        model = data.draw(st.sampled_from(["gpt-5.6-sol", "gpt-5.6-luna"]))
        fact = ev.AttemptStarted(model=model, purpose="race", mode="stream", client_request_id="c")
        job, _ = trails(job, [(fact, len(job.attempts) + 1)])
    hit = data.draw(st.integers(1, len(job.attempts)))
    job, _ = trails(job, [(ev.AttemptFinished(outcome=Outcome.BLOCKED), hit)])
    for _ in range(data.draw(st.integers(0, 15))):
        after, new = trails(job, [data.draw(st.sampled_from(candidates(job)))])
        assert not {e.type for e in new} & never
        job = after
    job, new = trails(job, wild)
    assert not {e.type for e in new} & never
    assert not job.settled or job.status == "blocked"


@QUIET
@given(st.data())
def test_an_event_out_of_its_place_changes_nothing(data):
    job, _ = lived(data, 8)
    assume(not job.settled)
    for fact, attempt in candidates(job):
        for seq in (job.version, job.version + 2):
            try:
                fold.apply(job, ev.event(seq, T0, JOB, fact, attempt))
            except IllegalEvent:
                continue
            raise AssertionError(f"{fact.TYPE} was taken as event {seq} after {job.version}")
