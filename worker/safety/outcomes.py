"""Says what an attempt's outcome means for its open check and its response, and whether Vigil caused it. Pure data."""

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
"""How a check that is still open ends, by the outcome of its attempt."""

MAY_RUN_ON: Final = frozenset(
    {Outcome.STREAM_CUT, Outcome.IDLE_TIMEOUT, Outcome.PROTOCOL_ERROR, Outcome.CONNECT_FAILED, Outcome.INTERRUPTED}
)
"""Outcomes after which a background response may run on at the provider."""

STOPPED_BY_VIGIL: Final = frozenset({Outcome.SUBSTITUTED, Outcome.CANCELLED, Outcome.INTERRUPTED})
"""Outcomes that Vigil caused itself."""
