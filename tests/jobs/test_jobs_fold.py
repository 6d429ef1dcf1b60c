"""The fold: the legal lives of a job told as stories, and what it refuses."""

from datetime import timedelta
from decimal import Decimal

import pytest
from builders import (
    BLOCK,
    BLOCKED,
    CANCELLED,
    COMPLETED,
    ERROR,
    EXPIRED,
    FAILED,
    HELD,
    JOB,
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

from worker.jobs import events as ev, fold
from worker.jobs.errors import AlreadySettled, IllegalEvent
from worker.jobs.offers import Offer
from worker.jobs.record import Hold
from worker.jobs.spec import Policy
from worker.jobs.states import CheckEnd, Evidence, Outcome, Purpose, RetryModelState

CLEARED = ev.CheckEnded(ended_by=CheckEnd.OUTPUT)
RESCUED = ev.Rescued(worker="w2", generation=2)
INTERRUPTED = ev.Interrupted(worker="w1")
SUBSTITUTED = ev.ModelSubstituted(disclosure=disclosure())
OFFER = ev.OfferMade(model=LUNA)
BY_LUNA = ev.Completed(served_model=LUNA, disclosure=disclosure())
DENIED = done(Outcome.ACCESS_DENIED)
GONE = done(Outcome.BLOCKED)

LIVES = {
    "normal": [STARTED, (began(), 1), (done(), 1), (COMPLETED, 1)],
    "refusal": [STARTED, (began(), 1), (done(Outcome.REFUSED), 1), (ev.Completed(served_model=SOL, refused=True), 1)],
    "cut short": [
        STARTED,
        (began(), 1),
        (done(Outcome.INCOMPLETE), 1),
        (ev.Completed(served_model=SOL, reason="max_output_tokens"), 1),
    ],
    "check": [STARTED, (began(), 1), (noticed(), 1), (CLEARED, 1), (done(), 1), (COMPLETED, 1)],
    "two checks": [STARTED, (began(), 1), (noticed(), 1), (CLEARED, 1), (noticed(), 1), (CLEARED, 1), (done(), 1)],
    "block": [STARTED, (began(), 1), (GONE, 1), (BLOCKED, 1)],
    "checked and blocked": [
        STARTED,
        (began(), 1),
        (noticed(), 1),
        (ev.CheckEnded(ended_by=CheckEnd.BLOCKED), 1),
        (GONE, 1),
        (BLOCKED, 1),
    ],
    "retry": [
        STARTED,
        (began(), 1),
        (done(Outcome.OVERLOADED), 1),
        backoff(),
        STARTED,
        (began(), 2),
        (done(), 2),
        (COMPLETED, 2),
    ],
    "released early": [HELD, ev.Released(), STARTED, (began(), 1), (done(), 1), (COMPLETED, 1)],
    "rescue": [STARTED, (began(), 1), RESCUED, (done(Outcome.LOST), 1), (began(), 2), (done(), 2), (COMPLETED, 2)],
    "rescue resumes": [STARTED, (began(), 1), RESCUED, (done(), 1), (COMPLETED, 1)],
    "interrupt with an open attempt": [STARTED, (began(), 1), INTERRUPTED, STARTED, (done(), 1), (COMPLETED, 1)],
    "interrupt breaks off": [STARTED, (began(), 1), (done(Outcome.INTERRUPTED), 1), INTERRUPTED, STARTED, (began(), 2)],
    "fallback": [STARTED, (began(), 1), (DENIED, 1), (SUBSTITUTED, 1), (began(LUNA), 2), (done(), 2), (BY_LUNA, 2)],
    "reroute": [STARTED, (began(), 1), (done(served_model=LUNA), 1), (BY_LUNA, 1)],
    "offer accepted": [
        STARTED,
        (began(), 1),
        (noticed(), 1),
        OFFER,
        ev.OfferAccepted(model=LUNA, by="key_1"),
        (ev.CheckEnded(ended_by=CheckEnd.SUBSTITUTED), 1),
        (done(Outcome.SUBSTITUTED), 1),
        (SUBSTITUTED, 1),
        (began(LUNA, Purpose.FASTER), 2),
        (done(), 2),
        (BY_LUNA, 2),
    ],
    "offer expired": [
        STARTED,
        (began(), 1),
        (noticed(), 1),
        OFFER,
        (CLEARED, 1),
        ev.OfferExpired(because="cleared"),
        (done(), 1),
        (COMPLETED, 1),
    ],
    "draft replaced": [
        STARTED,
        (began(), 1),
        (began(LUNA, Purpose.DRAFT), 2),
        (done(), 2),
        (ev.DraftReady(model=LUNA), 2),
        (done(), 1),
        ev.DraftWithdrawn(because="replaced"),
        (COMPLETED, 1),
    ],
    "draft and block": [
        STARTED,
        (began(), 1),
        (began(LUNA, Purpose.DRAFT), 2),
        (done(), 2),
        (ev.DraftReady(model=LUNA), 2),
        (GONE, 1),
        ev.DraftWithdrawn(because="blocked"),
        (BLOCKED, 1),
    ],
    "race": [
        STARTED,
        (began(), 1),
        (began(LUNA, Purpose.RACE), 2),
        (done(), 2),
        (done(Outcome.CANCELLED), 1),
        (BY_LUNA, 2),
    ],
    "cancelled in the queue": [CANCELLED],
    "cancelled on request": [
        STARTED,
        (began(), 1),
        ev.CancelRequested(by="key_1"),
        (done(Outcome.CANCELLED), 1),
        CANCELLED,
    ],
    "expired in the queue": [EXPIRED],
    "expired in a hold": [HELD, EXPIRED],
    "interrupted and expired": [STARTED, (began(), 1), INTERRUPTED, (done(Outcome.TIMED_OUT), 1), EXPIRED],
    "failed": [STARTED, (began(), 1), (done(Outcome.BAD_REQUEST), 1), FAILED],
}
ENDS = {
    "two checks": "running",
    "interrupt breaks off": "running",
    "block": "blocked",
    "checked and blocked": "blocked",
    "draft and block": "blocked",
    "failed": "failed",
    "cancelled in the queue": "cancelled",
    "cancelled on request": "cancelled",
    "expired in the queue": "expired",
    "expired in a hold": "expired",
    "interrupted and expired": "expired",
}


@pytest.mark.parametrize("name", LIVES)
def test_a_legal_life_ends_where_it_should(name):
    job, trail = life(*LIVES[name])
    assert job.status == ENDS.get(name, "completed")
    assert job.version == len(trail) == len(LIVES[name]) + 1
    assert fold.replay(trail) == job


OPEN = [STARTED, (began(), 1)]
CHECKED = [*OPEN, (noticed(), 1)]
ANSWERED = [*OPEN, (done(), 1)]
WITHHELD = [*OPEN, (GONE, 1)]
DRAFTING = [*OPEN, (began(LUNA, Purpose.DRAFT), 2)]
SEEN = T0 + timedelta(seconds=3)  # after the attempt's start
DRAFTED = [*DRAFTING, (done(), 2), (ev.DraftReady(model=LUNA), 2)]

ILLEGAL = {
    "queued twice": ([], queued()),
    "an answer without an attempt": ([STARTED], (COMPLETED, 1)),
    "an answer of attempt 0": (ANSWERED, (COMPLETED, 0)),
    "an answer of the last but none": (ANSWERED, (COMPLETED, -1)),
    "an answer of nobody": (ANSWERED, COMPLETED),
    "an answer of an attempt to come": (ANSWERED, (COMPLETED, 7)),
    "an answer while it is awaited": (OPEN, (COMPLETED, 1)),
    "an answer of a failed attempt": ([*OPEN, (done(Outcome.OVERLOADED), 1)], (COMPLETED, 1)),
    "an answer of a queued job": ([*ANSWERED, INTERRUPTED], (COMPLETED, 1)),
    "a silent reroute": ([*OPEN, (done(served_model=LUNA), 1)], (COMPLETED, 1)),
    "another model without a word": (ANSWERED, (ev.Completed(served_model=LUNA), 1)),
    "a disclosure that names a third": (ANSWERED, (ev.Completed(served_model=LUNA, disclosure=disclosure("x")), 1)),
    "a disclosure of nothing": (ANSWERED, (ev.Completed(served_model=SOL, disclosure=disclosure()), 1)),
    "an attempt of a queued job": ([], (began(), 1)),
    "attempt 2 first": ([STARTED], (began(), 2)),
    "attempt 1 again": (OPEN, (began(), 1)),
    "an attempt without number": ([STARTED], began()),
    "an attempt after a block": (WITHHELD, (began(), 2)),
    "an answer after a block": ([*OPEN, (began(), 2), (done(), 2), (GONE, 1)], (COMPLETED, 2)),
    "a draft after a block": ([*DRAFTING, (done(), 2), (GONE, 1)], (ev.DraftReady(model=LUNA), 2)),
    "failed after a block": (WITHHELD, FAILED),
    "cancelled after a block": (WITHHELD, CANCELLED),
    "expired after a block": (WITHHELD, EXPIRED),
    "an end of an attempt that ended": (ANSWERED, (done(), 1)),
    "an end of attempt 0": (OPEN, (done(), 0)),
    "an update of an attempt that ended": (ANSWERED, (ev.AttemptUpdated(sequence=1), 1)),
    "an update of nobody": (OPEN, ev.AttemptUpdated(sequence=1)),
    "an end under a check": (CHECKED, (done(), 1)),
    "a check of nobody": ([STARTED], (noticed(), 1)),
    "a check of an attempt that ended": (ANSWERED, (noticed(), 1)),
    "a check within a check": (CHECKED, (noticed(), 1)),
    "a check of a handed over job": ([*OPEN, INTERRUPTED], (noticed(), 1)),
    "more of no check": (OPEN, (ev.CheckUpdated(evidence=Evidence.SIGNALLED), 1)),
    "less evidence": (CHECKED, (ev.CheckUpdated(evidence=Evidence.SUSPECTED), 1)),
    "the end of no check": (OPEN, (CLEARED, 1)),
    "the end of a check twice": ([*CHECKED, (CLEARED, 1)], (CLEARED, 1)),
    "an end with an open attempt": (OPEN, FAILED),
    "a block with an open attempt": (OPEN, (BLOCKED, 1)),
    "an end with an open offer": ([*OPEN, OFFER, (done(), 1)], (COMPLETED, 1)),
    "a wait with an open attempt": (OPEN, backoff()),
    "a backoff without end": ([STARTED], ev.Scheduled(reason="backoff")),
    "a start while running": ([STARTED], STARTED),
    "a rescue of a queued job": ([], RESCUED),
    "an interrupt of a queued job": ([], INTERRUPTED),
    "an interrupt of a waiting job": ([HELD], INTERRUPTED),
    "an interrupt under a check": (CHECKED, INTERRUPTED),
    "a release of a queued job": ([], ev.Released()),
    "an offer in the queue": ([], OFFER),
    "a second offer": ([*OPEN, OFFER], OFFER),
    "another offer accepted": ([*OPEN, OFFER], ev.OfferAccepted(model=SOL, by="k")),
    "no offer accepted": (OPEN, ev.OfferAccepted(model=LUNA, by="k")),
    "no offer expired": (OPEN, ev.OfferExpired(because="cleared")),
    "a substitution in the queue": ([], SUBSTITUTED),
    "a draft of a model at work": (DRAFTING, (ev.DraftReady(model=LUNA), 2)),
    "a draft of nobody": (DRAFTED[:4], ev.DraftReady(model=LUNA)),
    "a second draft": (DRAFTED, (ev.DraftReady(model=LUNA), 2)),
    "no draft withdrawn": (OPEN, ev.DraftWithdrawn(because="replaced")),
    "a draft withdrawn twice": (
        [*DRAFTED, ev.DraftWithdrawn(because="replaced")],
        ev.DraftWithdrawn(because="settled"),
    ),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_does_not_fit_is_refused(name):
    before, last = ILLEGAL[name]
    life(*before)
    with pytest.raises(IllegalEvent):
        life(*before, last)


@pytest.mark.parametrize("end", [CANCELLED, EXPIRED, FAILED])
def test_terminal_is_terminal(end):
    job, trail = life(end)
    for fact in (STARTED, CANCELLED, FAILED, EXPIRED, BLOCKED, ev.CancelRequested(by="k")):
        with pytest.raises(AlreadySettled) as caught:
            fold.apply(job, ev.event(2 + len(trail), T0, JOB, fact))
        assert (caught.value.job_id, caught.value.status) == (JOB, job.status)


def test_an_event_has_its_place_and_its_job():
    job, _ = life(STARTED)
    for seq, name in ((2, JOB), (4, JOB), (0, JOB), (3, JOB[:-1] + "0")):
        with pytest.raises(IllegalEvent, match="expected event 3"):
            fold.apply(job, ev.event(seq, T0, name, RESCUED))


@pytest.mark.parametrize(("seq", "fact"), [(1, STARTED), (2, queued()), (1, COMPLETED)])
def test_a_job_begins_with_queued_as_event_1(seq, fact):
    with pytest.raises(IllegalEvent, match="begins"):
        fold.apply(None, ev.event(seq, T0, JOB, fact))


def test_an_empty_trail_has_no_record():
    with pytest.raises(IllegalEvent):
        fold.replay([])


def test_require_model_admits_no_substitution():
    first = queued(policy=Policy(require_model=True))
    with pytest.raises(IllegalEvent, match="require_model"):
        life(*OPEN, (DENIED, 1), (SUBSTITUTED, 1), first=first)
    with pytest.raises(IllegalEvent, match="require_model"):
        life(*OPEN, (done(served_model=LUNA), 1), (BY_LUNA, 1), first=first)


def test_a_block_takes_a_standing_draft_with_it():
    job, _ = life(*DRAFTED, (GONE, 1), (BLOCKED, 1))
    assert job.draft_withdrawn
    assert job.block == BLOCK


def test_every_field_of_a_normal_life_is_told():
    update = ev.AttemptUpdated(request_id="req_1", response_id="resp_1", http_status=200, first_output_at=SEEN)
    end = done(cost=Decimal("0.01"), served_model=SOL, first_output_at=T0 + timedelta(hours=1), error=None)
    job, _ = life(STARTED, (began(), 1), (update, 1), (end, 1), (COMPLETED, 1))
    attempt = job.attempts[0]
    assert (attempt.request_id, attempt.response_id, attempt.http_status) == ("req_1", "resp_1", 200)
    assert attempt.first_output_at == SEEN, "the first output stays the first"
    assert attempt.cost == Decimal("0.01")
    assert (job.created_at, job.started_at, job.finished_at) == (
        T0,
        T0 + timedelta(seconds=1),
        T0 + timedelta(seconds=5),
    )
    assert (job.served_model, job.disclosure, job.winner, job.reason) == (SOL, None, 1, None)


def test_the_first_output_of_a_short_answer_is_told_at_its_end():
    job, _ = life(STARTED, (began(), 1), (done(first_output_at=SEEN), 1))
    assert job.attempts[0].first_output_at == SEEN


def test_the_first_start_is_kept_over_waits_and_waits_say_why():
    waiting, _ = life(STARTED, backoff(7))
    assert (waiting.status, waiting.reason, waiting.next_attempt_at) == (
        "scheduled",
        "backoff",
        T0 + timedelta(seconds=7),
    )
    again, _ = life(STARTED, backoff(7), STARTED)
    assert (again.started_at, again.reason, again.next_attempt_at) == (T0 + timedelta(seconds=1), None, None)


def test_a_hold_says_what_holds_it_until_it_is_over():
    held, _ = life(HELD)
    assert held.hold == Hold(scope="key:abc", reason="insufficient_quota", since=T0 + timedelta(seconds=1))
    assert life(HELD, backoff())[0].hold is None
    assert life(HELD, STARTED)[0].hold is None
    assert life(HELD, ev.Released())[0].hold is None
    assert life(HELD, EXPIRED)[0].hold is None


def test_an_expired_job_says_which_deadline():
    job, _ = life(ev.Expired(deadline="queue_deadline", error=ERROR))
    assert (job.reason, job.error) == ("queue_deadline", ERROR)


def test_a_cancelled_job_says_whether_it_was_billed():
    assert life(ev.Cancelled(upstream_under_way=True, billed=True))[0].billed_on_cancel is True


def test_the_first_cancel_request_counts_and_a_flagged_account_is_kept():
    job, _ = life(STARTED, ev.CancelRequested(by="a"), ev.CancelRequested(by="b"), ev.AccountFlagged())
    assert job.cancel_requested_at == T0 + timedelta(seconds=2)
    assert job.account_flagged


def test_an_offer_stands_until_it_is_taken_or_over():
    assert life(*OPEN, OFFER)[0].offer == Offer(model=LUNA, since=T0 + timedelta(seconds=3))
    assert life(*OPEN, OFFER, ev.OfferAccepted(model=LUNA, by="k"))[0].offer is None


def test_evidence_rises_and_a_notice_without_retry_model_keeps_what_was_said():
    more = ev.CheckUpdated(
        evidence=Evidence.SIGNALLED,
        use_cases=("cyber",),
        retry_model=LUNA,
        retry_model_state=RetryModelState.NAMED,
        repeats=1,
    )
    absent = ev.CheckUpdated(evidence=Evidence.SIGNALLED, repeats=2)
    job, _ = life(*OPEN, (noticed(Evidence.SUSPECTED), 1), (more, 1), (absent, 1))
    check = job.checks[0]
    assert (check.evidence, check.retry_model, check.retry_model_state, check.repeats) == (
        "signalled",
        LUNA,
        "named",
        2,
    )


def test_an_explicit_null_takes_the_retry_model_back():
    named = ev.CheckUpdated(evidence="signalled", retry_model=LUNA, retry_model_state="named")
    null = ev.CheckUpdated(evidence="signalled", retry_model=None, retry_model_state="none")
    job, _ = life(*CHECKED, (named, 1), (null, 1))
    assert (job.checks[0].retry_model, job.checks[0].retry_model_state) == (None, "none")


def test_a_late_repeat_is_kept_with_the_check_that_ended():
    job, _ = life(*CHECKED, (CLEARED, 1), (ev.CheckUpdated(evidence=Evidence.SIGNALLED, repeats=3), 1))
    assert job.status == "running"
    assert job.checks[0].repeats == 3


def test_two_attempts_are_checked_on_their_own():
    both = [*OPEN, (began(LUNA, Purpose.RACE), 2), (noticed(), 1), (noticed(), 2)]
    one_left, _ = life(*both, (CLEARED, 1))
    assert one_left.status == "checking"
    assert [c.attempt for c in one_left.open_checks] == [2]
    assert life(*both, (CLEARED, 1), (CLEARED, 2))[0].status == "running"


def test_no_refusal_shows_what_was_in_the_event():
    with pytest.raises(IllegalEvent) as caught:
        life(*ANSWERED, (ev.Completed(served_model="a secret name"), 1))
    assert "a secret name" not in str(caught.value)
