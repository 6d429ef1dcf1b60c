"""Whether and when a question is asked again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from worker.client.retry import Retries, may_repeat, retry_after

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
JITTERS = st.floats(0, 1, exclude_max=True)


@given(tries=st.integers(1, 10_000), jitter=JITTERS, retry_after=st.none() | st.floats(0, 60))
def test_a_pause_is_bounded_and_never_shorter_than_asked(tries, jitter, retry_after):
    pause = Retries().delay(tries, jitter, retry_after)
    assert pause is not None
    assert max(retry_after or 0, 0.125) <= pause <= max(retry_after or 0, 8.0)


@given(tries=st.integers(1, 50), jitter=JITTERS)
def test_pauses_grow(tries, jitter):
    now, later = Retries().delay(tries, jitter), Retries().delay(tries + 1, jitter)
    assert now is not None
    assert later is not None
    assert now <= later


def test_more_patience_than_we_have_is_not_given():
    assert Retries(most_asked=10).delay(1, 0.5, 11) is None


@pytest.mark.parametrize(
    ("repeatable", "status", "sent", "again"),
    [
        (True, None, True, True),
        (True, None, False, True),
        (False, None, False, True),  # it never arrived
        (False, None, True, False),  # it may have been done
        (True, 503, True, True),
        (False, 503, True, False),
        (True, 429, True, True),
        (False, 429, True, True),  # it was not even looked at
        (True, 500, True, False),
        (True, 409, True, False),
        (True, 502, True, True),
    ],
)
def test_only_what_can_do_no_harm_is_asked_again(repeatable, status, sent, again):
    assert may_repeat(repeatable=repeatable, status=status, sent=sent) is again


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        (" 0 ", 0.0),
        ("Sun, 22 Nov 2026 18:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 17:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("²", None),
        ("1e9", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value, seconds):
    assert retry_after({"retry-after": value}, NOW) == seconds


def test_no_header_no_seconds():
    assert retry_after({}, NOW) is None
