"""A check of `vigil doctor`: its state, detail and fix, and how it is printed."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warning", "problem"]
_SKEW_WARNING_S, _SKEW_PROBLEM_S = 1.0, 5.0
_NAME_WIDTH: Final = 12
_NARROW_WIDTH: Final = 60


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One check: what was checked, its state, a detail and how to fix it."""

    name: str
    state: State
    detail: str
    fix: str | None = None


def clock_check(name: str, whose: str, seconds: float, *, slack: float = 0.0) -> DoctorCheck:
    """Compare clocks. `seconds`: the other clock minus this one; `slack`: the uncertainty of the measurement."""
    detail = f"{abs(seconds):.3f} s {'behind' if seconds > 0 else 'ahead of'} {whose}"
    if abs(seconds) < _SKEW_WARNING_S + slack:
        return DoctorCheck(
            name, "ok", detail if abs(seconds) > slack else f"the same as {whose}'s, as far as can be measured"
        )
    state: State = "warning" if abs(seconds) < _SKEW_PROBLEM_S + slack else "problem"
    return DoctorCheck(
        name, state, detail, "synchronise all machines with one time server: leases, deadlines and signatures need it"
    )


def format_check(check: DoctorCheck, width: int | None = None) -> str:
    """Format the check as lines that fit the terminal; on a narrow one the detail goes below the name."""
    width = width or shutil.get_terminal_size((100, 24)).columns
    fix = f"fix: {check.fix}" if check.fix else ""
    head = f"{check.state:<8} {check.name:<{_NAME_WIDTH}} "
    if width < _NARROW_WIDTH:
        lines = [head.rstrip(), *_wrapped(check.detail, width, "  "), *_wrapped(fix, width, "  ")]
        return "\n".join(lines)
    first, *more = _wrapped(check.detail, width, " " * len(head))
    return "\n".join([head + first.lstrip(), *more, *_wrapped(fix, width, " " * len(head))])


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(20, width - 1),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
