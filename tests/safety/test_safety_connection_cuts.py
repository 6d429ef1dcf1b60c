"""A proxy's time limit is recognised by cuts after the same time each, and is told as what it is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from builders import T0

from worker.jobs.errors import Failure
from worker.jobs.record import Attempt, JobError, ProviderError
from worker.jobs.states import Outcome, Purpose
from worker.safety import messages, retry
from worker.safety.connection_cuts import UNANSWERED, ConnectionCuts, repeated_cuts

CUT = Failure(Outcome.STREAM_CUT, "stream_cut", "network", retryable=True)
LATE = ProviderError(code=None, type=None, http_status=504, request_id=None)


def ended(
    number: int, seconds: float, code: str = "stream_cut", provider_error: ProviderError | None = None, **more
) -> Attempt:
    error = JobError(type="x", code=code, message="m", advice="a", provider=provider_error)
    return Attempt(
        number=number, model="m", purpose=Purpose.ORIGINAL, mode="stream", client_request_id="c", started_at=T0,
        finished_at=T0 + timedelta(seconds=seconds), error=error, **more
    )  # fmt: skip


def test_three_cuts_after_the_same_time_are_one_clock():
    assert repeated_cuts([ended(1, 60.0), ended(2, 60.4), ended(3, 59.9)]) == ConnectionCuts(3, pytest.approx(60.1))


def test_a_gateways_timeout_and_a_cut_without_headers_count():
    rows = [ended(1, 60, "server_error", LATE), ended(2, 60, "connect_failed", flags=(UNANSWERED,)), ended(3, 60)]
    found = repeated_cuts(rows)
    assert found is not None
    assert found.times == 3


@pytest.mark.parametrize(
    "last",
    [
        ended(2, 60, "server_error", LATE.evolve(code="server_error")),  # the provider's own error
        ended(2, 60, "connect_failed"),  # nothing was sent
        ended(2, 0.2),  # no clock cuts so soon
        ended(2, 60, first_output_at=T0),
    ],
)
def test_what_is_no_proxys_cut(last):
    assert repeated_cuts([ended(1, 60), last]) is None


def test_cuts_after_different_times_are_not_alike():
    assert repeated_cuts([ended(1, 20), ended(2, 60)]) == ConnectionCuts(1, 60.0)


def test_a_third_cut_is_not_followed_by_a_fourth_send():
    assert isinstance(retry.decide(2, 5, CUT, False, 0.5, 0.0, None, repeated_cuts=2), retry.RetryAt)
    assert retry.decide(3, 5, CUT, False, 0.5, 0.0, None, repeated_cuts=3) == retry.GiveUp("cut_alike")


def test_the_record_says_after_what_time_and_how_often():
    error = messages.final_error(CUT, "cut_alike", ConnectionCuts(3, 60.03))
    assert error.code == "proxy_timeout"
    assert error.message == "The request was cut by a proxy after 60 s three times."
    assert "buffering" in error.advice
    assert "read timeout" in error.advice
    assert messages.final_error(CUT, "output_seen", ConnectionCuts(1, 60.0)) == messages.failure_error(CUT)


@pytest.mark.parametrize(("output", "check", "why"), [(True, True, "output_seen"), (False, True, "check_signalled")])
def test_a_prompt_that_was_answered_in_part_or_is_checked_is_not_sent_again(output, check, why):
    assert retry.decide(1, 5, CUT, output, 0.5, 0.0, None, check_signalled=check) == retry.GiveUp(why)


@pytest.mark.parametrize("code", ["response_lost", "response_unreachable"])
def test_a_lost_response_is_asked_anew_only_before_output_and_outside_a_check(code):
    lost = Failure(Outcome.LOST, code, "provider", retryable=True)
    assert retry.decide(1, 5, lost, True, 0.5, 0.0, None) == retry.GiveUp("output_seen")
    assert retry.decide(1, 5, lost, False, 0.5, 0.0, None, check_signalled=True) == retry.GiveUp("check_signalled")
    assert isinstance(retry.decide(1, 5, lost, False, 0.5, 0.0, None), retry.RetryAt)


def test_an_unreachable_response_names_the_setting():
    unreachable = Failure(Outcome.LOST, "response_unreachable", "provider", retryable=True)
    assert "VIGIL_UPSTREAM=stream" in messages.failure_error(unreachable).advice
