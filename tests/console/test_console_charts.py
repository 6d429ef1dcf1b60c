"""Charts: shares by hour with gaps where nothing happened, durations by bounds; within their frames always."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import get_args

import pytest
from hypothesis import given, strategies as st
from jinja2 import Environment, PackageLoader

from api.console import formats
from api.console.charts import histogram, rate_chart
from worker.safety.account import Counts, State
from worker.store.provider.request_counts import EndCounts, RequestBucket

START = datetime(2026, 11, 30, 0, 0, tzinfo=UTC)


NO_REQUESTS, NO_ENDS = Counts(), EndCounts()


def bucket(number: int, requests: Counts = NO_REQUESTS, ends: EndCounts = NO_ENDS) -> RequestBucket:
    return RequestBucket(START + timedelta(minutes=10 * number), requests, ends)


def test_shares_are_of_the_hour_and_hours_without_requests_are_gaps():
    history = [bucket(n) for n in range(24)]
    history[0] = bucket(0, Counts(ordinary=8, signalled=3, blocked=2, blocked_signalled=1), EndCounts(4, 2, 1))
    history[13] = bucket(13, Counts(ordinary=10), EndCounts(10, 0, 0))
    chart = rate_chart(history)
    assert [(requests, shares) for _, requests, shares in chart.rows] == [
        (10, [0.4, 0.2, 0.25]),
        (0, [None, None, None]),
        (10, [0.0, 0.0, 0.0]),
        (0, [None, None, None]),
    ]
    assert chart.top == 0.5
    assert [len(line.dots) for line in chart.lines] == [2, 2, 2]
    assert not chart.empty
    assert rate_chart([bucket(n) for n in range(144)]).empty


def test_durations_are_counted_by_bounds():
    shown = histogram({0: 5, 60: 3, 150: 1})
    assert [(bar.up_to, bar.count) for bar in shown.bars if bar.count] == [(1, 5), (60, 3), (None, 1)]
    assert shown.total == 9
    assert shown.median is not None
    assert histogram({}).total == 0


@given(
    st.lists(st.tuples(*[st.integers(0, 50)] * 5), max_size=150),
    st.dictionaries(st.integers(0, 150), st.integers(0, 9)),
)
def test_everything_is_within_the_frame(rows, counts):
    chart = rate_chart([bucket(n, Counts(*row), EndCounts(*row[:3])) for n, row in enumerate(rows)])
    points = [point for line in chart.lines for path in line.paths for point in path.split()]
    places = [tuple(map(float, point.split(","))) for point in points] + [
        dot for line in chart.lines for dot in line.dots
    ]
    assert all(0 <= x <= 100 and 0 <= y <= 100 for x, y in places)
    assert all(0 <= bar.height <= 100 and bar.x + bar.width <= 100 for bar in histogram(counts).bars)


def test_each_state_of_the_account_has_a_shape_and_a_colour_of_its_own():
    templates = Environment(loader=PackageLoader("api.console"), autoescape=True)
    templates.filters |= formats.FILTERS
    shape = templates.get_template("macros.html").make_module().glyph
    style = files("api.console").joinpath("static/console.css").read_text()
    assert len({str(shape(name)) for name in (*get_args(State), "paused", "queued")}) == len(get_args(State)) + 2
    for state in get_args(State):
        assert f".status.s-{state}" in style


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\u2013"),
        (-5, "0 ms"),
        (0.0421, "42 ms"),
        (9.96, "10.0 s"),
        (59.4, "59 s"),
        (125, "2 min 05 s"),
        (3_000, "50 min"),
        (3_600, "1 h"),
        (3_660, "1 h 01 min"),
        (86_400, "1 d"),
        (200_000, "2 d 7 h"),
    ],
)
def test_lengths_of_time(seconds, text):
    assert formats.duration(seconds) == text


def test_times_to_come_and_gone():
    assert formats.relative(START, START + timedelta(seconds=90)) == "1 min 30 s ago"
    assert formats.relative("2026-11-30T00:02:00Z", START) == "in 2 min"
    assert formats.relative(START, START + timedelta(seconds=0.4)) == "now"
