"""What an attempt's outcome means for its open check, for its response, and for whose doing it was. Pure data."""

from __future__ import annotations

from typing import Final

from worker.jobs.states import CheckEnd, Outcome

CHECK_ENDS: Final = {
    Outcome.COMPLETED: CheckEnd.COMPLETED,
    Outcome.REFUSED: CheckEnd.COMPLETED,
    Outcome.INCOMPLETE: CheckEnd.COMPLETED,
    Outcome.BLOCKED: CheckEnd.BLOCKED,
    Outcome.SUBSTITUTED: CheckEnd.SUBSTITUTED,
    Outcome.CANCELLED: CheckEnd.CANCELLED,
    Outcome.TIMED_OUT: CheckEnd.TIMED_OUT,
    Outcome.IDLE_TIMEOUT: CheckEnd.TIMED_OUT,
    Outcome.INTERRUPTED: CheckEnd.INTERRUPTED,
    Outcome.LOST: CheckEnd.LOST,
}
"""What ends a check that is still open, by how its attempt ended."""

MAY_RUN_ON: Final = frozenset(
    {Outcome.STREAM_CUT, Outcome.IDLE_TIMEOUT, Outcome.PROTOCOL_ERROR, Outcome.CONNECT_FAILED, Outcome.INTERRUPTED}
)
"""Outcomes after which a background response may run on at the provider."""

STOPPED_BY_VIGIL: Final = frozenset({Outcome.SUBSTITUTED, Outcome.CANCELLED, Outcome.INTERRUPTED})
"""Outcomes that are our own doing."""
