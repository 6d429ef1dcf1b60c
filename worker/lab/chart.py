"""Draws the simulation's rows as one SVG: four small charts over the threshold, a line for each action.

Written by hand and self-contained: no script, no font, no address to fetch. It must not depend on files, policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Final, NamedTuple

from worker.jobs.spec import Action
from worker.lab.model import PolicyResult

_WIDE, _HIGH = 520.0, 300.0  # one panel, with its margins
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 22.0, 44.0, 52.0
_HEAD = 104.0
_FONT: Final = "font-family='system-ui, Helvetica, Arial, sans-serif'"
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


class LineStyle(NamedTuple):
    """How an action is drawn: never by colour alone, because lines overlap."""

    colour: str
    dash: str
    width: float
    marker: str


LOOKS: Final[dict[Action, LineStyle]] = {
    "wait": LineStyle("#9aa0a6", "", 6.0, "circle"),
    "offer": LineStyle("#0072b2", "7 4", 2.4, "square"),
    "switch": LineStyle("#d55e00", "", 4.4, "triangle"),
    "race": LineStyle("#009e73", "5 3", 2.2, "diamond"),
    "draft": LineStyle("#a03e86", "2 4", 2.2, "circle"),
}


class Panel(NamedTuple):
    """One small chart: its title, the unit of its values, the value of a row."""

    title: str
    unit: str
    value: Callable[[PolicyResult], float | None]


def _thousand(row: PolicyResult) -> float | None:
    return None if row.extra is None else float(row.extra) / max(1, row.jobs) * 1000


PANELS: Final = (
    Panel("Waiting for a first usable answer, p50", "seconds", lambda r: r.wait_p50),
    Panel("Waiting for a first usable answer, p95", "seconds", lambda r: r.wait_p95),
    Panel("Jobs answered by another model", "% of jobs", lambda r: r.substituted * 100),
    Panel("Cost beyond plain waiting", "US$ per 1,000 jobs", _thousand),
)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers that cover low to high; the first and the last may lie outside."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(s * power for s in _STEPS if s * power * wanted >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, max(last, first + 1) + 1)]


def draw(rows: Sequence[PolicyResult], subtitle: str) -> str:
    """Return the SVG; `subtitle` says where the jobs come from."""
    subtitle = "".join(c for c in subtitle if c.isprintable())  # XML admits no control characters
    actions = list(dict.fromkeys(row.action for row in rows))
    wide, high = 2 * _WIDE, _HEAD + 2 * _HIGH
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {wide:g} {high:g}' width='{wide:g}' height='{high:g}'",
        f"  role='img' aria-labelledby='t d' {_FONT} font-size='12' fill='#202124'>",
        "<title id='t'>What if: delay rules compared</title>",
        f"<desc id='d'>{escape(_described(rows))}</desc>",
        f"<rect width='{wide:g}' height='{high:g}' fill='#ffffff'/>",
        "<text x='24' y='34' font-size='20' font-weight='600'>What if: delay rules compared</text>",
        f"<text x='24' y='56' fill='#5f6368'>{escape(subtitle)}</text>",
        *_legend(actions, 24.0, 82.0),
    ]
    for number, panel in enumerate(PANELS):
        x, y = _WIDE * (number % 2), _HEAD + _HIGH * (number // 2)
        parts += [f"<g transform='translate({x:g} {y:g})'>", *_panel(panel, rows, actions), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _described(rows: Sequence[PolicyResult]) -> str:
    return "; ".join(
        f"{r.action} after {r.after_seconds:g} s: p50 {r.wait_p50:.1f} s, p95 {r.wait_p95:.1f} s, "
        f"{r.substituted:.1%} by another model"
        for r in rows
    )


def _legend(actions: Sequence[Action], x: float, y: float) -> list[str]:
    parts = []
    for action in actions:
        parts += [_line([(x, y - 4), (x + 34, y - 4)], LOOKS[action]), _mark(x + 17, y - 4, LOOKS[action])]
        parts.append(f"<text x='{x + 42:g}' y='{y:g}' font-size='13'>{escape(action)}</text>")
        x += 62 + 8 * len(action)
    return parts


def _panel(panel: Panel, rows: Sequence[PolicyResult], actions: Sequence[Action]) -> list[str]:
    points = {a: [(r.after_seconds, panel.value(r)) for r in rows if r.action == a] for a in actions}
    known = {a: sorted((x, y) for x, y in found if y is not None) for a, found in points.items()}
    values = [y for found in known.values() for _, y in found]
    title = f"<text x='{_LEFT:g}' y='24' font-size='14' font-weight='600'>{escape(panel.title)}</text>"
    if not values:
        return [title, f"<text x='{_LEFT:g}' y='{_HIGH / 2:g}' fill='#5f6368'>no price known</text>"]
    ys = ticks(min(0.0, *values), max(0.0, *values))
    xs = sorted({row.after_seconds for row in rows})
    low, high = (xs[0], xs[-1]) if len(xs) > 1 else (xs[0] - 1, xs[0] + 1)
    right, bottom = _WIDE - _RIGHT, _HIGH - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + 12 + (value - low) / (high - low) * (right - _LEFT - 24)

    def down(value: float) -> float:
        return bottom - (value - ys[0]) / (ys[-1] - ys[0]) * (bottom - _TOP)

    parts = [title]
    for tick in ys:
        y, colour = down(tick), "#5f6368" if abs(tick) < 1e-12 else "#e3e5e8"  # noqa: PLR2004  zero, but for rounding
        parts.append(f"<line x1='{_LEFT:g}' y1='{y:.1f}' x2='{right:g}' y2='{y:.1f}' stroke='{colour}'/>")
        parts.append(f"<text x='{_LEFT - 8:g}' y='{y + 4:.1f}' text-anchor='end' fill='#5f6368'>{_short(tick)}</text>")
    for value in _apart(xs, across):
        x = across(value)
        parts.append(f"<line x1='{x:.1f}' y1='{bottom:g}' x2='{x:.1f}' y2='{bottom + 5:g}' stroke='#5f6368'/>")
        label = f"<text x='{x:.1f}' y='{bottom + 19:g}' text-anchor='middle' fill='#5f6368'>{_short(value)}</text>"
        parts.append(label)
    middle = (_LEFT + right) / 2
    parts.append(
        f"<text x='{middle:g}' y='{bottom + 38:g}' text-anchor='middle'>acts after a check of (seconds)</text>"
        f"<text transform='translate(18 {(_TOP + bottom) / 2:g}) rotate(-90)' text-anchor='middle'>{escape(panel.unit)}"
        "</text>"
    )
    for action, found in known.items():
        path = [(across(x), down(y)) for x, y in found]
        parts += [_line(path, LOOKS[action]), *(_mark(x, y, LOOKS[action]) for x, y in path)]
    return parts


def _apart(xs: Sequence[float], across: Callable[[float], float]) -> list[float]:
    """Return the labels that have room beside one another."""
    kept: list[float] = []
    for x in xs:
        if not kept or across(x) - across(kept[-1]) >= 34:  # noqa: PLR2004  pixels that a label needs
            kept.append(x)
    return kept


def _short(value: float) -> str:
    return f"{round(value, 6):,.10g}".replace("-", "−")  # noqa: RUF001  a minus is no hyphen


def _line(points: Sequence[tuple[float, float]], look: LineStyle) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = f" stroke-dasharray='{look.dash}'" if look.dash else ""
    return f"<polyline points='{path}' fill='none' stroke='{look.colour}' stroke-width='{look.width:g}'{dash}/>"


def _mark(x: float, y: float, look: LineStyle) -> str:
    paint = f"fill='{look.colour}' stroke='#ffffff' stroke-width='1'"
    if look.marker == "circle":
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{3 + look.width / 2:g}' {paint}/>"
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "triangle": ((0, -9), (8, 6), (-8, 6)),  # large: it is seen behind the others
        "diamond": ((0, -5), (5, 0), (0, 5), (-5, 0)),
    }[look.marker]
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f"<polygon points='{path}' {paint}/>"
