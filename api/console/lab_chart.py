"""Computes where the marks of the lab's chart stand: each rule by how long jobs wait, how many another model answers,
and what it costs. Pure; the template draws it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from worker.lab.chart import ticks
from worker.lab.model import PolicyResult

WIDE: Final = 560.0
HIGH: Final = 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 18.0, 18.0, 44.0
_NARROW: Final = 0.05
"""Waits that differ by less than this share of themselves are drawn on an axis from 0."""
_LABEL_SPACE: Final = 46.0
_LABEL_HEIGHT: Final = 13.0
"""Pixels that a label needs."""


@dataclass(frozen=True, slots=True)
class AxisLabel:
    """A place on an axis and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A rule's place; `label`: its threshold, "" where there is no room; `text`: what it says when pointed at."""

    x: float
    y: float
    action: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart: a line of marks for each action over the two axes, and the mark of today's rule, if it has one."""

    title: str
    across: str
    up: str
    xs: tuple[AxisLabel, ...]
    ys: tuple[AxisLabel, ...]
    lines: dict[str, list[Mark]] = field(default_factory=dict)
    today: Mark | None = None
    left: float = _LEFT
    right: float = WIDE - _RIGHT
    top: float = _TOP
    bottom: float = HIGH - _BOTTOM


Value = Callable[[PolicyResult], float | None]


def substituted_percent(row: PolicyResult) -> float:
    """Return the share of jobs that another model answers, in percent."""
    return row.substituted * 100


def extra_per_thousand(row: PolicyResult) -> float | None:
    """Return the dollars per 1,000 jobs beyond plain waiting; None when a model has no price."""
    return None if row.extra is None else float(row.extra) / max(1, row.jobs) * 1000


def plots(rows: Sequence[PolicyResult], today: PolicyResult | None) -> list[Plot]:
    """Return waiting against substitution, and waiting against cost."""
    every = [*rows, *([today] if today is not None else [])]
    found = [
        _plot(
            "Waiting against substitution", "jobs answered by another model, %", rows, every, today, substituted_percent
        ),
        _plot("Waiting against cost", "US$ per 1,000 jobs beyond waiting", rows, every, today, extra_per_thousand),
    ]
    return [one for one in found if one is not None]


def _plot(
    title: str,
    up: str,
    rows: Sequence[PolicyResult],
    every: Sequence[PolicyResult],
    today: PolicyResult | None,
    value: Value,
) -> Plot | None:
    values = [known for one in every if (known := value(one)) is not None]
    if not values:
        return None
    waits = [one.wait_p95 for one in every]
    low, high = min(waits), max(waits)
    xs = ticks(low if high - low > _NARROW * high else 0.0, max(high, 1.0))
    ys = ticks(min(0.0, *values), max(1.0, *values))
    right, bottom = WIDE - _RIGHT, HIGH - _BOTTOM

    def across(seconds: float) -> float:
        return round(_LEFT + (seconds - xs[0]) / (xs[-1] - xs[0]) * (right - _LEFT), 1)

    def down(amount: float) -> float:
        return round(bottom - (amount - ys[0]) / (ys[-1] - ys[0]) * (bottom - _TOP), 1)

    def mark(row: PolicyResult, label: str) -> Mark | None:
        amount = value(row)
        if amount is None:
            return None
        text = f"{row.action} after {row.after_seconds:g} s: p95 {row.wait_p95:.1f} s, {amount:.1f} {up}"
        return Mark(across(row.wait_p95), down(amount), row.action, label, text)

    marked = None if today is None else mark(today, "today")
    labelled = [] if marked is None else [marked]
    lines: dict[str, list[Mark]] = {}
    for row in rows:
        made = mark(row, f"{row.after_seconds:g} s")
        if made is not None:
            has_room = not any(_is_near(made, other) for other in labelled)
            labelled += [made] if has_room else []
            lines.setdefault(row.action, []).append(made if has_room else replace(made, label=""))
    return Plot(
        title,
        "waiting for a first usable answer, p95, seconds",
        up,
        tuple(AxisLabel(across(one), f"{round(one, 6):g}") for one in xs),
        tuple(AxisLabel(down(one), f"{round(one, 6):g}") for one in ys),
        lines,
        marked,
    )


def _is_near(one: Mark, other: Mark) -> bool:
    """Return whether their labels would cover each other."""
    return abs(one.x - other.x) < _LABEL_SPACE and abs(one.y - other.y) < _LABEL_HEIGHT
