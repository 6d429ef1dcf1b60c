"""A job that expires while it waits says what it waited for: code, provider and advice of the cause."""

from datetime import timedelta

import pytest
from builders import STARTED, T0, began, done, life

from worker.jobs import events as ev
from worker.jobs.record import ProviderError
from worker.jobs.states import Outcome, ScheduledReason
from worker.safety.end_causes import expiry_error
from worker.safety.messages import MESSAGES, job_error

PROVIDER = ProviderError(code="insufficient_quota", type="insufficient_quota", http_status=429, request_id="req_1")


def held(reason: str, scope: str = "key:abc", provider: ProviderError | None = None) -> ev.Scheduled:
    hold = {"hold_scope": scope, "hold_reason": reason, "hold_provider": provider}
    return ev.Scheduled(reason=ScheduledReason.HOLD, until=T0, **hold)


@pytest.mark.parametrize(
    "code",
    ["quota_exhausted", "wrong_organization", "invalid_key", "deployment_quota_exhausted", "encryption_key_missing"],
)
@pytest.mark.parametrize("deadline", ["queue_deadline", "run_deadline"])
def test_a_hold_is_the_cause_also_of_a_job_that_was_never_sent(code, deadline):
    job, _ = life(held(code, provider=PROVIDER))
    error = expiry_error(job, deadline)
    assert (error.type, error.code, error.advice) == ("expired", code, MESSAGES[code].advice)
    assert error.provider == PROVIDER
    assert MESSAGES[code].message in error.message
    assert MESSAGES[deadline].message in error.message


def test_the_job_s_own_failed_call_tells_most():
    failed = job_error("quota_exhausted", provider=PROVIDER)
    other = ProviderError(code="insufficient_quota", http_status=429)
    job, _ = life(
        STARTED,
        (began(), 1),
        (done(Outcome.QUOTA_EXHAUSTED, error=failed), 1),
        held("quota_exhausted", provider=other),
    )
    assert expiry_error(job, "run_deadline").provider == PROVIDER


def test_a_pause_is_told_as_one_without_its_note():
    job, _ = life(held("ticket 7: customer X is late with payment", "pause:app:shop"))
    error = expiry_error(job, "queue_deadline")
    assert error.code == "paused"
    assert "payment" not in error.model_dump_json()


def test_a_job_that_waits_for_its_next_try_says_why_the_last_one_failed():
    failed = job_error("rate_limited", provider=PROVIDER)
    backoff = ev.Scheduled(reason=ScheduledReason.BACKOFF, until=T0 + timedelta(hours=9))
    job, _ = life(STARTED, (began(), 1), (done(Outcome.RATE_LIMITED, error=failed), 1), backoff)
    error = expiry_error(job, "run_deadline")
    assert (error.code, error.provider) == ("rate_limited", PROVIDER)


def test_without_a_cause_the_deadline_is_the_reason():
    assert expiry_error(life()[0], "queue_deadline") == job_error("queue_deadline")
    assert expiry_error(life(STARTED, (began(), 1))[0], "run_deadline") == job_error("run_deadline")
    failed = (done(Outcome.RATE_LIMITED, error=job_error("rate_limited")), 1)
    running, _ = life(STARTED, (began(), 1), failed, held("quota_exhausted"), STARTED, (began(), 2))
    assert expiry_error(running, "run_deadline") == job_error("run_deadline"), "what runs is not held"
