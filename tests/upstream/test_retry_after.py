from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from hypothesis import given, strategies as st

from worker.jobs.spec import Policy
from worker.upstream.retry_after import MAX_SECONDS, delay_in_message, retry_after

NOW = datetime(2026, 7, 10, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "-1500", "retry-after": "2"}, 2.0),
        ({"retry-after": "180"}, 180.0),
        ({"retry-after": " 180 "}, 180.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "5, 10"}, 10.0),
        ({"retry-after": "Fri, 10 Jul 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 10 Jul 2026 12:00:30 GMT", "date": "Fri, 10 Jul 2026 12:00:10 GMT"}, 20.0),
        ({"retry-after": "Fri, 10 Jul 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 10 Jul 2026 12:00:30"}, 30.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_SECONDS),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 -1200"}, MAX_SECONDS),
        ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 0001 00:00:00 +1200"}, 0.0),
        ({"retry-after": "3e11"}, MAX_SECONDS),
        ({"retry-after": "1e300"}, MAX_SECONDS),
        ({"retry-after": "1e999"}, MAX_SECONDS),
        ({"retry-after": "9" * 300}, MAX_SECONDS),
        ({"retry-after-ms": "1e15"}, MAX_SECONDS),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_what_a_header_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "date"]),
        st.text() | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(lambda at: f"{at:%a, %d %b %Y}"),
    )
)
def test_whatever_is_sent_can_be_added_to_a_time(headers: dict[str, str]) -> None:
    sent = httpx2.Headers([(name.encode(), value.encode("utf-8", "replace")) for name, value in headers.items()])
    seconds = retry_after(sent, NOW)
    assert seconds is None or (0 <= seconds <= MAX_SECONDS and NOW + timedelta(seconds=seconds))


@given(st.from_regex(r"try again in (\d{1,14}(\.\d{1,12})? ?(ms|m|s|h|d) ?){1,4}"))
def test_words_ask_for_no_more_than_headers(message: str) -> None:
    seconds = delay_in_message(message)
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= MAX_SECONDS)


def test_the_bound_is_no_ceiling_below_a_deadline() -> None:
    longest_run = Policy.model_json_schema()["properties"]["run_deadline_seconds"]["maximum"]
    assert longest_run < MAX_SECONDS
