"""Which ends of jobs people on call are told of, and by which cause: a table."""

from __future__ import annotations

import pytest
from builders import STARTED, T0, began, done, life, noticed, shipped

from worker.jobs import events as ev, fold
from worker.jobs.record import Job
from worker.jobs.states import CheckEnd, Outcome, ScheduledReason
from worker.safety.end_causes import expiry_error
from worker.safety.event_mapping import abort_attempt, preview
from worker.safety.messages import job_error
from worker.telemetry import job_ends, sentry_issues


@pytest.fixture(autouse=True)
def families() -> None:
    job_ends.set_families({"gpt-5.6-sol": "gpt-5.6"})


def failed(outcome: Outcome, code: str) -> tuple[Job, Job]:
    """A job before and after its last attempt failed so."""
    error = job_error(code)
    before, _ = life(STARTED, (began(), 1), (done(outcome, error=error), 1))
    return before, ended(before, ev.Failed(error=error))


def ended(before: Job, fact: ev.Fact) -> Job:
    return fold.apply(before, ev.event(before.version + 1, T0, before.id, fact, None))


def expired(before: Job) -> tuple[Job, Job]:
    """A job before and after its deadline ended it, with all that is open."""
    end = ev.Expired(deadline="run_deadline", error=expiry_error(before, "run_deadline"))
    open_ones = [abort_attempt(before, one.number, Outcome.TIMED_OUT, 0, shipped()) for one in before.open_attempts]
    return before, preview(before, [*(draft for drafts in open_ones for draft in drafts), (end, None)], T0)


def group(before: Job, after: Job) -> str | None:
    found = job_ends.end_of(before, after)
    return None if found is None else sentry_issues.group_of(*found)


@pytest.mark.parametrize(
    ("outcome", "code", "reported"),
    [
        (Outcome.SERVER_ERROR, "server_error", True),
        (Outcome.CONNECT_FAILED, "connection_refused", True),
        (Outcome.RATE_LIMITED, "rate_limited", True),
        (Outcome.STREAM_CUT, "proxy_timeout", True),
        (Outcome.LOST, "response_lost", True),
        (Outcome.ACCESS_DENIED, "region_unsupported", True),
        (Outcome.CANCELLED, "cancelled_upstream", True),
        (Outcome.BAD_REQUEST, "bad_request", False),  # the request's fault
        (Outcome.CONTEXT_TOO_LONG, "context_too_long", False),
        (Outcome.ACCESS_DENIED, "model_not_granted", False),  # lost access has an issue of its own,
        (Outcome.AUTH_FAILED, "invalid_key", False),  # and so has an account at fault,
        (Outcome.QUOTA_EXHAUSTED, "quota_exhausted", False),
        (Outcome.SERVER_ERROR, "failed_after_check", False),  # this may be a block,
        (Outcome.SERVER_ERROR, "may_be_withheld", False),
        (Outcome.SERVER_ERROR, "internal_error", False),  # and this is a bug, or a lost record
        (Outcome.SERVER_ERROR, "record_unreadable", False),
        (Outcome.COMPLETED, "cost_limit", False),
    ],
)
def test_a_failed_job_is_told_of_if_the_provider_or_the_network_failed(
    outcome: Outcome, code: str, reported: bool
) -> None:
    assert group(*failed(outcome, code)) == (f"job-failed|{code}|gpt-5.6" if reported else None)


def test_a_code_that_vigil_does_not_list_is_told_as_its_kind() -> None:
    error = job_error("some_code_of_a_gateway_x1", "server_error")
    before, _ = life(STARTED, (began(), 1), (done(Outcome.SERVER_ERROR, error=error), 1))
    assert group(before, ended(before, ev.Failed(error=error))) == "job-failed|server_error|gpt-5.6"


def test_what_failed_at_another_account_is_an_issue_of_its_own() -> None:
    error = job_error("server_error")
    start = began().model_copy(update={"account": "eu"})
    before, _ = life(STARTED, (start, 1), (done(Outcome.SERVER_ERROR, error=error), 1))
    assert group(before, ended(before, ev.Failed(error=error))) == "job-failed|server_error|eu:gpt-5.6"


def held(reason: str, scope: str) -> ev.Scheduled:
    return ev.Scheduled(reason=ScheduledReason.HOLD, until=T0, hold_scope=scope, hold_reason=reason)


def test_an_expiry_is_told_by_what_the_job_was_doing() -> None:
    assert group(*expired(life()[0])) == "job-waited|run_deadline|gpt-5.6"
    assert group(*expired(life(held("quota_exhausted", "key:a"))[0])) == "job-waited|quota_exhausted|gpt-5.6"
    assert group(*expired(life(held("a note", "pause:app:shop"))[0])) is None, "operators did that"
    assert group(*expired(life(STARTED, (began(), 1))[0])) == "job-expired|run_deadline|gpt-5.6"
    checked = life(STARTED, (began(), 1), (noticed(), 1))[0]
    assert group(*expired(checked)) == "job-checked|gpt-5.6"
    cleared = life(STARTED, (began(), 1), (noticed(), 1), (ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1))[0]
    assert group(*expired(cleared)) == "job-expired|run_deadline|gpt-5.6"
    assert {sentry_issues.CAUSES[cause].level for cause in ("job-checked", "job-waited")} == {"warning"}


def test_an_end_is_told_of_when_it_happens_and_never_again() -> None:
    before, after = failed(Outcome.SERVER_ERROR, "server_error")
    assert job_ends.end_of(after, after) is None, "what changes a settled job is no end"
    assert job_ends.end_of(None, before) is None
    cancelled = ev.Cancelled(upstream_under_way=False, billed=False, error=job_error("cancelled"))
    assert job_ends.end_of(life(STARTED)[0], ended(life(STARTED)[0], cancelled)) is None
