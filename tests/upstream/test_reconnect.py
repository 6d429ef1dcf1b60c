from __future__ import annotations

import pytest

from worker.safety.stream import Closed, Rejected
from worker.upstream.reconnect import Ended, Reconnect, Way

CUT = Closed("cut", "ClientPayloadError")
REFUSED = Closed("connect_failed", "ClientConnectorError", opened=False)


def reconnect(way: Way = Way.CREATE) -> Reconnect:
    return Reconnect(way, poll_first=1.0, poll_most=5.0, give_up_after=60.0)


def ended(end: object, *, progress: bool = False, opening: float = 0.0, standing: float = 0.0) -> Ended:
    return Ended(end, progress, opening, standing)  # type: ignore[arg-type]


def rejected(status: int, retry_after: float | None = None) -> Rejected:
    return Rejected(status, None, retry_after=retry_after)


@pytest.mark.parametrize("how", ["cut", "clean", "half_frame", "bad_json"])
def test_a_cut_response_is_resumed_soon(how: str) -> None:
    state = reconnect()
    assert state.after(ended(Closed(how), progress=True)) == 0.2  # type: ignore[arg-type]
    assert state.way is Way.RESUME


def test_failures_in_a_row_wait_longer_and_give_up_in_about_a_minute() -> None:
    state = reconnect(Way.RESUME)
    waits = []
    while isinstance(step := state.after(ended(REFUSED)), float):
        waits.append(step)
    assert waits[:4] == [0.5, 1.0, 2.0, 2.0]
    assert 50 < sum(waits) < 62
    assert step == REFUSED


def test_time_spent_connecting_counts() -> None:
    state = reconnect(Way.RESUME)
    tries = 0
    while isinstance(state.after(ended(REFUSED, opening=10.0)), float):
        tries += 1
    assert tries == 5  # and 10 s each


@pytest.mark.parametrize("good", [{"progress": True}, {"standing": 6.0}])
def test_a_connection_that_was_of_use_starts_the_count_again(good: dict[str, float]) -> None:
    state = reconnect(Way.RESUME)
    for _ in range(200):
        assert isinstance(state.after(ended(CUT, **good)), float)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [400, 404, 405, 410, 422])
def test_a_refused_resume_is_polled_at_once(status: int) -> None:
    state = reconnect(Way.RESUME)
    assert state.after(ended(rejected(status))) == 0.0
    assert state.way is Way.POLL


@pytest.mark.parametrize("way", [Way.RESUME, Way.POLL])
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_a_passing_rejection_is_tried_again(way: Way, status: int) -> None:
    state = reconnect(way)
    assert state.after(ended(rejected(status))) == 0.5
    assert state.way is way


@pytest.mark.parametrize("way", [Way.RESUME, Way.POLL])
@pytest.mark.parametrize("status", [401, 403])
def test_a_rejected_key_is_the_last_word(way: Way, status: int) -> None:
    assert reconnect(way).after(ended(rejected(status))) == rejected(status)


def test_a_rejected_first_call_is_the_last_word() -> None:
    assert reconnect().after(ended(rejected(503))) == rejected(503)


def test_retry_after_is_heeded_within_reason() -> None:
    assert reconnect(Way.RESUME).after(ended(rejected(429, 7.0))) == 7.0
    assert reconnect(Way.RESUME).after(ended(rejected(429, 7000.0))) == 30.0


def test_resumes_that_bring_nothing_new_are_given_up_for_polling() -> None:
    state = reconnect(Way.RESUME)
    steps = 0
    while state.way is Way.RESUME:
        state.after(ended(Closed("clean")))
        steps += 1
    assert steps == 3


def test_a_lost_response_is_lost() -> None:
    assert reconnect(Way.POLL).after(ended(rejected(404))) == Closed("lost")


def test_polls_slow_down() -> None:
    state = reconnect(Way.POLL)
    assert [state.after(ended(None)) for _ in range(6)] == [1.0, 1.5, 2.25, 3.375, 5.0, 5.0]


def test_giving_up_on_rejections_is_a_cut_too() -> None:
    state = reconnect(Way.POLL)
    while isinstance(step := state.after(ended(rejected(503))), float):
        pass
    assert step == Closed("cut", "Rejected")
