"""The lab's chart: marks stand where their numbers say, inside the axes, and labels don't cover each other."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, strategies as st

from api.console.lab_chart import Plot, plots
from worker.lab.model import ACTIONS, PolicyResult

SECONDS = st.floats(0, 1e6, allow_nan=False)
MONEY = st.none() | st.decimals(-1_000, 1_000, places=4)


def row(action="switch", after=15.0, wait=30.0, share=0.2, extra: Decimal | None = Decimal("1.5")) -> PolicyResult:
    shares = {"substituted": share, "offered": 0.0, "drafted": 0.0, "blocked": 0.0}
    waits = {"wait_p50": wait, "wait_p95": wait, "settled_p50": wait, "settled_p95": wait}
    return PolicyResult(
        action, after_seconds=after, silence_seconds=120.0, jobs=1_000, wasted=extra, extra=extra, **shares, **waits
    )


ROWS = st.lists(
    st.builds(row, st.sampled_from(ACTIONS), st.just(15.0), SECONDS, st.floats(0, 1), MONEY), min_size=1, max_size=30
)


def places(plot: Plot):
    return [*(mark for line in plot.lines.values() for mark in line), *([plot.today] if plot.today else [])]


@given(ROWS, st.integers(0, 29))
def test_every_mark_is_inside_the_axes_and_no_two_labels_share_a_place(rows, today):
    for plot in plots(rows, rows[today % len(rows)]):
        for mark in places(plot):
            assert plot.left - 0.1 <= mark.x <= plot.right + 0.1
            assert plot.top - 0.1 <= mark.y <= plot.bottom + 0.1
        named = [mark for mark in places(plot) if mark.label]
        close = [(a, b) for a in named for b in named if a is not b and abs(a.x - b.x) < 40 and abs(a.y - b.y) < 12]
        assert close == []
        assert all(len(one.label) <= 12 for one in (*plot.xs, *plot.ys))


def test_more_is_higher_and_longer_is_further_right():
    few, many = row(wait=20.0, share=0.1), row(after=60.0, wait=80.0, share=0.4)
    plot = plots([few, many], None)[0]
    first, second = plot.lines["switch"]
    assert second.x > first.x
    assert second.y < first.y
    assert plot.today is None


def test_without_prices_there_is_no_chart_of_costs():
    assert [plot.title for plot in plots([row(extra=None)], None)] == ["Waiting against substitution"]
