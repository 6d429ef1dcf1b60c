"""Small charts as geometry for an SVG, and the same figures as the rows of a table. Pure.

Lines and bars are in percent of the plot; `None` in a series is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from worker.safety.hold_times import bound_of, quantile
from worker.store.provider.request_counts import RequestBucket

_HOUR_BUCKETS: Final = 6
_NICE_SHARES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_BOUNDS_S: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_LABELS: Final[dict[float | None, str]] = {1: "1 s", 10: "10 s", 60: "1 min", 300: "5 min", 1800: "30 min"}
_CLASSES: Final = ("series-a", "series-b", "series-c")


@dataclass(frozen=True, slots=True)
class Line:
    """One series. `paths`: its pieces between gaps, as points of an SVG; `dots`: values with gaps on both sides."""

    name: str
    css: str
    values: Sequence[float | None]
    paths: list[str]
    dots: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RateChart:
    """Shares by hour. `top`: the share at the upper edge; `rows`: (hour, requests, shares in the order of lines)."""

    top: float
    lines: list[Line]
    rows: list[tuple[datetime, int, list[float | None]]]

    @property
    def empty(self) -> bool:
        """Return whether there was no request at all."""
        return all(count == 0 for _, count, _ in self.rows)


@dataclass(frozen=True, slots=True)
class HistogramBar:
    """How many lasted at most `up_to` seconds and longer than the bar before; None = longer than all bounds.

    `label`: what stands below it, for some of the bars.
    """

    up_to: float | None
    count: int
    x: float
    width: float
    height: float
    label: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something lasted."""

    bars: list[HistogramBar]
    total: int
    median: float | None
    p90: float | None


def rate_chart(history: Sequence[RequestBucket]) -> RateChart:
    """Return the shares of checked and blocked requests and of substituted jobs, hour by hour, oldest first."""
    rows = list[tuple[datetime, int, list[float | None]]]()
    for start in range(0, len(history), _HOUR_BUCKETS):
        part = history[start : start + _HOUR_BUCKETS]
        answered = sum(one.requests.ordinary + one.requests.blocked for one in part)
        checked = sum(one.requests.signalled + one.requests.blocked_signalled for one in part)
        blocked = sum(one.requests.blocked for one in part)
        ended, substituted = sum(one.ends.all for one in part), sum(one.ends.substituted for one in part)
        shares = [_share(checked, answered), _share(blocked, answered), _share(substituted, ended)]
        rows.append((part[0].at, answered, shares))
    columns = [[shares[column] for _, _, shares in rows] for column in range(len(_CLASSES))]
    highest = max((value for column in columns for value in column if value is not None), default=0.0)
    top = next(share for share in _NICE_SHARES if highest <= share)
    names = ("requests checked", "requests blocked", "jobs substituted")
    lines = [_line(*one, top) for one in zip(names, _CLASSES, columns, strict=True)]
    return RateChart(top, lines, rows)


def histogram(counts: Mapping[int, int]) -> Histogram:
    """Return a histogram of durations, counted in the buckets of hold_times.py."""
    bounds: list[float | None] = [*_BOUNDS_S, None]
    found = dict.fromkeys(bounds, 0)
    for bucket, count in counts.items():
        found[next((bound for bound in _BOUNDS_S if bound_of(bucket) <= bound), None)] += count
    most, step = max(found.values(), default=0), 100 / len(bounds)
    bars = [
        HistogramBar(
            bound,
            found[bound],
            round(number * step, 3),
            round(0.8 * step, 3),
            _height(found[bound], most),
            _LABELS.get(bound, ""),
        )
        for number, bound in enumerate(bounds)
    ]
    return Histogram(bars, sum(found.values()), quantile(counts, 0.5), quantile(counts, 0.9))


def _share(part: int, whole: int) -> float | None:
    return min(1.0, part / whole) if whole else None


def _height(count: int, most: int) -> float:
    return round(100 * count / most, 2) if most else 0.0


def _line(name: str, css: str, values: Sequence[float | None], top: float) -> Line:
    """Return the series with its pieces: each run of two values or more is a line, a lone value is a dot."""
    runs: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            x = 100 * number / max(1, len(values) - 1)
            runs[-1].append((round(x, 2), round(100 - 100 * min(value, top) / top, 2)))
    paths = [" ".join(f"{x},{y}" for x, y in run) for run in runs if len(run) > 1]
    return Line(name, css, values, paths, [run[0] for run in runs if len(run) == 1])
