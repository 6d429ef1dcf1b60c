"""Check the limits of an app before they are stored: its weight, and how many of its jobs may run at once."""

from __future__ import annotations

from typing import Final

from worker.jobs.errors import Refused

MIN_WEIGHT: Final = 0.01
MAX_WEIGHT: Final = 1000.0
MAX_RUNNING: Final = 1_000_000


def refuse_bad(weight: float | None, max_running: int | None, end_user_max: int | None) -> None:
    """Raise Refused for a limit that is out of range; None = it is not changed."""
    if weight is not None and not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise Refused("invalid_weight", f"A weight is a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}.", 422)
    for field, limit in (("max_running", max_running), ("end_user_max", end_user_max)):
        if limit is not None and not 0 <= limit <= MAX_RUNNING:
            raise Refused(f"invalid_{field}", f"{field} is a whole number from 0 to {MAX_RUNNING}.", 422)
