"""What follows the end of a connection, as a pure function of how it ended."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.safety.stream import Closed, ProviderProblem, Rejected
from worker.upstream.reconnect import BACKOFF, ConnectionEnd, NextRequest, Reconnect

CUT = Closed("cut", "ClientPayloadError")
REFUSED = Closed("connect_failed", "ClientConnectorError", opened=False)
TYPED = ProviderProblem(None, "invalid_request_error")


def reconnect(way: NextRequest = NextRequest.CREATE, *, in_background: bool | None = True) -> Reconnect:
    state = Reconnect(way, poll_interval=1.0, max_poll_interval=5.0)
    state.in_background = in_background
    return state


def ended(
    end: Any, *, progress: bool = False, opening: float = 0.0, lasted: float = 0.0, **more: bool
) -> ConnectionEnd:
    return ConnectionEnd(end, progress, opening, lasted, **more)


def rejected(status: int, retry_after: float | None = None, problem: ProviderProblem | None = None) -> Rejected:
    return Rejected(status, problem, retry_after=retry_after, on="poll")


@pytest.mark.parametrize("how", ["cut", "clean", "half_frame", "bad_json"])
def test_a_cut_response_is_resumed_soon(how: Any) -> None:
    state = reconnect()
    assert state.after(ended(Closed(how), progress=True)) == 0.2
    assert state.next_request is NextRequest.RESUME


@pytest.mark.parametrize("way", [NextRequest.RESUME, NextRequest.POLL])
@pytest.mark.parametrize("end", [REFUSED, *(rejected(status) for status in (401, 403, 407, 408, 409, 429, 500, 503))])
def test_failures_in_a_row_wait_longer_and_never_give_up(way: NextRequest, end: Any) -> None:
    state = reconnect(way)
    waits = [state.after(ended(end, opening=10.0)) for _ in range(500)]
    assert waits[:6] == list(BACKOFF)
    assert set(waits[6:]) == {BACKOFF[-1]}
    assert state.next_request is way


def test_connections_that_bring_a_little_each_are_not_made_faster_and_faster() -> None:
    state = reconnect(NextRequest.RESUME)
    waits = [state.after(ended(CUT, progress=True)) for _ in range(6)]
    assert waits == [0.2, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert state.after(ended(CUT, lasted=6.0)) == 0.2


@pytest.mark.parametrize("status", [400, 405, 422])
def test_a_refused_resume_is_polled(status: int) -> None:
    state = reconnect(NextRequest.RESUME)
    assert state.after(ended(rejected(status))) == 0.2
    assert state.next_request is NextRequest.POLL
    assert state.after(ended(None)) == 1.0
    assert state.next_request is NextRequest.POLL, "the stream is not asked for again"


def test_a_rejected_first_call_is_the_last_word() -> None:
    assert reconnect().after(ended(rejected(503))) == rejected(503)


def test_retry_after_is_heeded_without_a_ceiling_of_ours() -> None:
    state = reconnect(NextRequest.RESUME)
    assert state.after(ended(rejected(429, 7.0))) == 7.0
    assert state.provider_asked
    assert state.after(ended(rejected(429, 7000.0))) == 7000.0
    assert state.after(ended(rejected(429, 0.01))) == 1.0
    assert not state.provider_asked


@pytest.mark.parametrize("retry_after", [float("inf"), float("nan"), -1.0, 1e300])
def test_a_retry_after_that_can_not_be_meant_is_bounded(retry_after: float) -> None:
    wait = reconnect(NextRequest.POLL).after(ended(rejected(503, retry_after)))
    assert isinstance(wait, float)
    assert 0.2 <= wait <= 86_400


def test_a_wait_named_in_the_error_counts_too() -> None:
    assert (
        reconnect(NextRequest.POLL).after(
            ended(rejected(429, None, ProviderProblem("slow_down", None, retry_after=9.0)))
        )
        == 9.0
    )


def test_short_resumes_that_bring_nothing_new_are_given_up_for_polling() -> None:
    state, steps = reconnect(NextRequest.RESUME), 0
    while state.next_request is NextRequest.RESUME:
        state.after(ended(Closed("clean")))
        steps += 1
    assert steps == 3


def test_long_silent_streams_are_no_reason_to_poll() -> None:
    """A proxy that cuts after a minute of silence: the notice of a check comes only in the stream."""
    state = reconnect(NextRequest.RESUME)
    for _ in range(60):
        state.after(ended(CUT, lasted=60.0))
    assert state.next_request is NextRequest.RESUME


def test_a_404_has_to_last() -> None:
    state = reconnect(NextRequest.POLL)
    waits = []
    while isinstance(step := state.after(ended(rejected(404, problem=TYPED))), float):
        waits.append(step)
    assert step == Closed("lost")
    assert waits == [0.2, 0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_a_404_that_went_away_starts_anew() -> None:
    state = reconnect(NextRequest.POLL)
    for _ in range(10):
        for _ in range(5):
            assert isinstance(state.after(ended(rejected(404, problem=TYPED))), float)
        assert isinstance(state.after(ended(None)), float)
        state.next_request = NextRequest.POLL


def test_a_slow_404_counts_its_own_time() -> None:
    state = reconnect(NextRequest.POLL)
    assert isinstance(state.after(ended(rejected(404, problem=TYPED), opening=29.0)), float)
    assert state.after(ended(rejected(404, problem=TYPED), opening=29.0)) == Closed("lost")


@pytest.mark.parametrize("problem", [None, ProviderProblem(None, None, message="Not Found")])
def test_a_gateways_404_says_nothing_of_a_response_that_is_known_to_run(problem: ProviderProblem | None) -> None:
    state = reconnect(NextRequest.POLL)
    state.after(ended(None))
    for _ in range(100):
        assert isinstance(state.after(ended(rejected(404, problem=problem))), float)


DETAIL = ProviderProblem(None, None, message="Not Found")


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("way", [NextRequest.RESUME, NextRequest.POLL])
def test_a_route_that_never_was_there_is_named_after_a_minute(way: NextRequest, status: int) -> None:
    state, waited = reconnect(way), 0.0
    while isinstance(step := state.after(ended(rejected(status, problem=DETAIL))), float):
        waited += step
    assert step == Closed("no_route")
    assert 60 <= waited < 80


def test_a_gateways_pages_are_no_missing_route() -> None:
    state = reconnect(NextRequest.POLL)
    for _ in range(100):
        assert isinstance(state.after(ended(rejected(404, problem=DETAIL))), float)
        assert isinstance(state.after(ended(rejected(404))), float)


def test_polls_slow_down() -> None:
    state = reconnect(NextRequest.POLL)
    state.after(ended(rejected(400)))
    state._stream_again = False
    assert [state.after(ended(None)) for _ in range(6)] == [1.0, 1.5, 2.25, 3.375, 5.0, 5.0]


ENDS = st.one_of(
    st.sampled_from([CUT, REFUSED, Closed("clean"), Closed("bad_json", "Fault"), None]),
    st.builds(
        rejected,
        st.sampled_from([301, 400, 401, 403, 405, 408, 413, 422, 429, 500, 501, 502, 503, 504, 529]),
        st.none() | st.floats(allow_nan=True, allow_infinity=True),
    ),
)


@given(
    way=st.sampled_from([NextRequest.RESUME, NextRequest.POLL]),
    steps=st.lists(
        st.builds(ended, ENDS, progress=st.booleans(), lasted=st.floats(0, 100), snapshot=st.booleans()), max_size=60
    ),
)
def test_whatever_looks_are_answered_with_a_response_that_nobody_calls_lost_is_kept(
    way: NextRequest, steps: list[ConnectionEnd]
) -> None:
    state = reconnect(way)
    for step in steps:
        wait = state.after(step)
        assert isinstance(wait, float)
        assert 0.2 <= wait <= 86_400
        assert state.next_request is not NextRequest.CREATE
