"""What becomes of a change that Redis does not take as it is: too large, or full until the deadline. Pure, but for the
wait between two tries, which is told in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.errors import StoreFull, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.safety import messages
from worker.telemetry.events import emit

_AGAIN, _AGAIN_FULL = 0.25, 5.0  # seconds between two tries; a full Redis is asked less and less often
_TELL_AFTER, _TELL_EVERY = 5.0, 30.0


def ends(said: Sequence[EventDraft]) -> bool:
    """True when these facts end the job."""
    return any(isinstance(fact, ev.TERMINAL_FACTS) for fact, _ in said)


def without_content(said: Sequence[EventDraft]) -> list[EventDraft]:
    """The facts when what came back can't be kept: no answer is delivered and no draft shown; a block stays one."""
    out: list[EventDraft] = []
    for fact, number in said:
        if isinstance(fact, ev.Completed):
            out.append((ev.Failed(error=messages.job_error("answer_too_large")), None))
        elif not isinstance(fact, ev.DraftReady):
            out.append((fact, number))
    return out


class RetryWait:
    """The wait between two tries of one commit."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._began, self._tries, self._told = clock, clock.monotonic(), 0, 0.0

    async def wait(self, error: StoreUnavailable, left: float) -> None:
        """Returns when it is time to try again; `left`: seconds until the job's deadline."""
        self._tries += 1
        full = isinstance(error, StoreFull)
        waited = self._clock.monotonic() - self._began
        if (full and not self._told) or waited - self._told >= (_TELL_EVERY if self._told else _TELL_AFTER):
            self._told = max(waited, 0.001)
            emit("commit.waiting", reason=error.reason, seconds=round(waited, 1))
        pause = min(_AGAIN_FULL, _AGAIN * 2 ** min(self._tries - 1, 10)) if full else _AGAIN
        await asyncio.sleep(max(_AGAIN, min(pause, left)))
