"""How often one group of incidents is reported: at once, then at growing intervals, with the number of the others.

An outage of three hours with 10,000 failed jobs makes six reports: after 0, 1, 6 and 21 minutes, then once an hour.
Pure. `take_incidents.lua` decides the same for all processes together; `Budget` is for one that can't ask Redis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INTERVALS_S: Final = (60, 300, 900, 3600)
"""The seconds that pass between a report and the next one; the last interval repeats."""
QUIET_S: Final = 2 * 3600
"""So many seconds after its last occurrence or report an incident is over: the next one is reported at once."""
_MAX_GROUPS: Final = 1_000  # then those whose incident is over are forgotten


@dataclass(slots=True)
class _State:
    pending: int = 0  # occurrences since the last report
    number: int = 0  # reports so far
    due: float = 0.0
    last: float = 0.0  # the last occurrence or report


class Budget:
    """Decides for one process."""

    def __init__(self) -> None:
        self._states: dict[str, _State] = {}

    def take(self, group: str, count: int, now: float) -> tuple[int, int] | None:
        """Add `count` occurrences; return (how many to report, the number of reports before), or None to wait."""
        if group not in self._states and len(self._states) >= _MAX_GROUPS:
            self._states = {g: one for g, one in self._states.items() if one.pending or now - one.last < QUIET_S}
        state = self._states.setdefault(group, _State(due=now, last=now))
        if now - state.last >= QUIET_S:
            state.number, state.due = 0, now
        state.pending += count
        state.last = now if count else state.last
        if not state.pending or now < state.due:
            return None
        return self._report(state, now)

    def note_report(self, group: str, number: int, now: float) -> None:
        """Note a report that was decided elsewhere, the incident's `number`-th from 0."""
        state = self._states.setdefault(group, _State(last=now))
        state.number = number
        self._report(state, now)

    def groups(self) -> list[str]:
        """Return the groups with occurrences that are not reported yet."""
        return [group for group, state in self._states.items() if state.pending]

    def _report(self, state: _State, now: float) -> tuple[int, int]:
        count, number = state.pending, state.number
        state.pending, state.number, state.last = 0, number + 1, now
        state.due = now + INTERVALS_S[min(number, len(INTERVALS_S) - 1)]
        return count, number
