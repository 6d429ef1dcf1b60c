"""What no record may be: the promises that the type keeps, tried one by one and with arbitrary combinations."""

from datetime import timedelta
from decimal import Decimal

import pytest
from builders import (
    BLOCK,
    BLOCKED,
    COMPLETED,
    ERROR,
    LUNA,
    SOL,
    STARTED,
    T0,
    began,
    disclosure,
    done,
    keeps_its_promises,
    life,
    noticed,
    policies,
    queued,
)
from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic import ValidationError
from thorough import cases

from worker.jobs import events as ev
from worker.jobs.deadline import deadline_of
from worker.jobs.offers import Offer
from worker.jobs.record import Attempt, Check, Job
from worker.jobs.spec import Policy
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, SafetyState, ScheduledReason, Status


def completed_job() -> Job:
    return life(STARTED, (began(), 1), (done(), 1), (COMPLETED, 1))[0]


def substituted_job() -> Job:
    act = ev.ModelSubstituted(disclosure=disclosure())
    end = ev.Completed(served_model=LUNA, disclosure=disclosure())
    denied = (done(Outcome.ACCESS_DENIED), 1)
    return life(STARTED, (began(), 1), denied, (act, 1), (began(LUNA), 2), (done(), 2), (end, 2))[0]


def blocked_job() -> Job:
    return life(STARTED, (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1))[0]


ENDED = Attempt(
    number=1,
    model=SOL,
    purpose=Purpose.ORIGINAL,
    mode="stream",
    client_request_id="c",
    started_at=T0,
    outcome=Outcome.COMPLETED,
)
OPEN_CHECK = Check(attempt=1, evidence=Evidence.SIGNALLED, started_at=T0)


@pytest.mark.parametrize(
    "changes",
    [
        {"served_model": LUNA},
        {"served_model": None},
        {"winner": None},
        {"winner": 0},
        {"winner": -1},
        {"winner": 2},
        {"disclosure": disclosure(SOL)},
        {"disclosure": disclosure()},
        {"served_model": LUNA, "disclosure": disclosure()},  # Sol answered
        {"attempts": (ENDED.evolve(served_model=LUNA),)},  # Luna answered, and nobody says so
        {"attempts": (ENDED.evolve(outcome=Outcome.RATE_LIMITED),)},
        {"attempts": (ENDED.evolve(outcome=Outcome.BLOCKED),)},
        {"attempts": (ENDED, ENDED.evolve(number=2, outcome=Outcome.BLOCKED))},
        {"attempts": (ENDED, ENDED.evolve(number=2, outcome=None))},
        {"finished_at": None},
        {"checks": (OPEN_CHECK,)},
        {"offer": Offer(model=LUNA, since=T0)},
        {"block": BLOCK},
        {"status": Status.BLOCKED},
        {"status": Status.FAILED},
        {"status": Status.RUNNING},
    ],
    ids=str,
)
def test_a_completed_job_that_breaks_a_promise_cannot_be_built(changes):
    with pytest.raises(ValidationError):
        completed_job().evolve(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"disclosure": None},
        {"disclosure": disclosure("gpt-5.6-terra")},
        {"disclosure": disclosure(requested=LUNA)},
        {"served_model": SOL},
        {"winner": 1},
        {"policy": Policy(require_model=True)},
    ],
    ids=str,
)
def test_no_served_model_without_its_disclosure(changes):
    assert substituted_job().served_model == LUNA
    with pytest.raises(ValidationError):
        substituted_job().evolve(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"block": None},
        {"served_model": SOL, "winner": 1},
        {"status": Status.CANCELLED, "block": None},
        {"status": Status.EXPIRED, "block": None},
        {"status": Status.FAILED, "block": None, "error": ERROR},
        {"draft_attempt": 1},
    ],
    ids=str,
)
def test_a_block_stays_a_block(changes):
    with pytest.raises(ValidationError):
        blocked_job().evolve(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.SCHEDULED},
        {"reason": "backoff"},
        {"status": Status.CHECKING},
        {"checks": (OPEN_CHECK,)},
        {"served_model": SOL},
        {"winner": 1},
        {"finished_at": T0},
        {"prompt": "hello"},
    ],
    ids=str,
)
def test_a_running_job_that_contradicts_itself_cannot_be_built(changes):
    running, _ = life(STARTED, (began(), 1))
    with pytest.raises(ValidationError):
        running.evolve(**changes)


_attempts = st.lists(
    st.builds(
        ENDED.evolve,
        model=st.sampled_from([SOL, LUNA]),
        outcome=st.sampled_from([None, Outcome.COMPLETED, Outcome.COMPLETED, Outcome.BLOCKED, Outcome.RATE_LIMITED]),
        served_model=st.sampled_from([None, None, SOL, LUNA]),
    ),
    max_size=2,
).map(lambda made: tuple(a.evolve(number=n) for n, a in enumerate(made, 1)))


def _often_none(*values):
    return st.none() | st.sampled_from(values)


@settings(max_examples=cases(100, 600), suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.fixed_dictionaries(
        {
            "status": st.sampled_from([*Status, Status.COMPLETED, Status.COMPLETED]),
            "reason": _often_none("backoff", "max_output_tokens"),
            "finished_at": _often_none(T0),
            "served_model": st.sampled_from([None, SOL, LUNA]),
            "disclosure": _often_none(disclosure(), disclosure(SOL), disclosure(requested=LUNA)),
            "attempts": _attempts,
            "checks": st.sampled_from([(), (), (), (OPEN_CHECK,)]),
            "block": st.sampled_from([None, None, BLOCK]),
            "offer": st.sampled_from([None, None, None, Offer(model=LUNA, since=T0)]),
            "winner": st.sampled_from([None, 1, 1, 2, 0, -1]),
            "draft_attempt": _often_none(1),
            "draft_withdrawn": st.booleans(),
        }
    ),
    policy=st.just(Policy()) | policies,
)
def test_whatever_can_be_built_keeps_the_promises(changes, policy):
    new = queued(policy=policy).__dict__
    try:
        job = Job(id="job_1", version=1, created_at=T0, **new, **changes)
    except ValidationError:
        return
    keeps_its_promises(job)


def test_the_builders_reach_what_the_test_above_is_about():
    for job in (completed_job(), substituted_job(), blocked_job()):
        keeps_its_promises(job)


def test_a_record_never_changes():
    with pytest.raises(ValidationError):
        completed_job().status = Status.FAILED  # type: ignore[misc]


def test_a_record_survives_json():
    for job in (completed_job(), substituted_job(), blocked_job()):
        assert Job.model_validate_json(job.model_dump_json()) == job


def test_costs_are_summed_and_what_was_not_delivered_was_wasted():
    lost = (done(Outcome.STREAM_CUT, cost=Decimal("0.004")), 1)
    unpriced = (done(Outcome.CONNECT_FAILED), 2)
    won = (done(cost=Decimal("0.01")), 3)
    job, _ = life(STARTED, (began(), 1), lost, (began(), 2), unpriced, (began(), 3), won, (COMPLETED, 3))
    assert job.total_cost == Decimal("0.014")
    assert job.wasted_cost == Decimal("0.004")
    assert completed_job().total_cost is None
    assert completed_job().wasted_cost is None


def test_the_safety_state_in_one_word():
    none, _ = life(STARTED, (began(), 1))
    checking, _ = life(STARTED, (began(), 1), (noticed(), 1))
    over = (ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1)
    cleared, _ = life(STARTED, (began(), 1), (noticed(), 1), over)
    states = [job.safety_state for job in (none, checking, cleared, blocked_job())]
    assert states == [SafetyState.NONE, SafetyState.CHECKING, SafetyState.CLEARED, SafetyState.BLOCKED]


def test_the_queue_deadline_counts_from_submission_until_the_first_start_and_in_a_hold():
    first = queued(policy=Policy(queue_deadline_seconds=60.0, run_deadline_seconds=600.0))
    waiting, _ = life(first=first)
    assert deadline_of(waiting) == ("queue_deadline", T0 + timedelta(seconds=60))
    running, _ = life(STARTED, first=first)
    assert deadline_of(running) == ("run_deadline", T0 + timedelta(seconds=601))
    hold = ev.Scheduled(reason=ScheduledReason.HOLD, hold_scope="key:1", hold_reason="quota")
    held, _ = life(STARTED, hold, first=first)
    assert deadline_of(held) == ("queue_deadline", T0 + timedelta(seconds=60))


def test_without_a_queue_deadline_a_job_may_wait_for_ever():
    assert deadline_of(life()[0]) is None
