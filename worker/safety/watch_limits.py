"""Defines how long the watch of an attempt waits for the next event. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHARACTERS_PER_TOKEN: Final = 4
"""About how many characters of an answer are one token, where the provider did not count."""


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Seconds. `idle` rises to `check_idle` while a check is signalled, never for a suspected one.

    `suspect_after`: silence (keepalives allowed) after which a check is suspected; None = never.
    `after_fault`: how long to wait for a terminal event after an error event. Clients' own idle limit is 300 s; checks
    of 35 to 240 s were seen (wire.md section 2.3).
    """

    first_event: float = 300.0
    idle: float = 300.0
    check_idle: float = 600.0
    suspect_after: float | None = None
    after_fault: float = 15.0
