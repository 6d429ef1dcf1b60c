"""Read which ISO weeks a report is of. Pure."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

from worker.safety.loss_counts import monday_of, week_of_day

MAX_WEEKS: Final = 60
"""The most weeks of a report."""
DEFAULT_WEEKS: Final = 4
"""The weeks of a report that names no first one."""
_WEEK: Final = timedelta(days=7)
_YEARS: Final = range(2000, 9000)


class BadWeek(ValueError):
    """What names the first or the last week can't be used; `name` is which, the message says why."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


def weeks_between(today: date, first: str | None, last: str | None) -> list[str]:
    """Return the ISO weeks from the first to the last, both included; each is named itself or by one of its days.

    By default the current week and the three before. Raises BadWeek.
    """
    end = _monday_before(today) if last is None else _monday("to", last)
    start = end - (DEFAULT_WEEKS - 1) * _WEEK if first is None else _monday("from", first)
    count = (end - start) // _WEEK + 1
    if not 1 <= count <= MAX_WEEKS:
        raise BadWeek("from", f"from must not be after to, and a report has at most {MAX_WEEKS} weeks")
    return [week_of_day(start + n * _WEEK) for n in range(count)]


def _monday(name: str, text: str) -> date:
    try:
        found = monday_of(text) if "W" in text else _monday_before(date.fromisoformat(text))
        if found.year in _YEARS:
            return found
    except (ValueError, OverflowError):
        pass
    raise BadWeek(name, f"{name} must be an ISO week such as 2026-W45, or a day such as 2026-11-02")


def _monday_before(day: date) -> date:
    return day - timedelta(days=day.weekday())
