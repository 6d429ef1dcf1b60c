"""What the doctor finds: one line, how it stands, what mends it, and how it is written on a terminal."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warning", "problem"]
_SKEW_WARNING, _SKEW_PROBLEM = 1.0, 5.0
_NAME: Final = 12
_NARROW: Final = 60


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One line: what was looked at, how it stands, what mends it."""

    name: str
    state: State
    detail: str
    fix: str | None = None


def skew(name: str, whose: str, seconds: float, *, slack: float = 0.0) -> DoctorCheck:
    """How our clock stands to another's; `seconds` is theirs less ours, `slack` what can't be known."""
    said = f"{abs(seconds):.3f} s {'behind' if seconds > 0 else 'ahead of'} {whose}"
    if abs(seconds) < _SKEW_WARNING + slack:
        return DoctorCheck(
            name, "ok", said if abs(seconds) > slack else f"the same as {whose}'s, as far as one can see"
        )
    state: State = "warning" if abs(seconds) < _SKEW_PROBLEM + slack else "problem"
    return DoctorCheck(
        name, state, said, "let all machines follow one time server: leases, deadlines, signatures need it"
    )


def written(check: DoctorCheck, width: int | None = None) -> str:
    """The check as lines that fit the terminal; on a narrow one the detail goes below the name."""
    width = width or shutil.get_terminal_size((100, 24)).columns
    fix = f"fix: {check.fix}" if check.fix else ""
    head = f"{check.state:<8} {check.name:<{_NAME}} "
    if width < _NARROW:
        lines = [head.rstrip(), *_folded(check.detail, width, "  "), *_folded(fix, width, "  ")]
        return "\n".join(lines)
    first, *rest = _folded(check.detail, width, " " * len(head))
    return "\n".join([head + first.lstrip(), *rest, *_folded(fix, width, " " * len(head))])


def _folded(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(20, width - 1),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
