"""What becomes of a change that Redis does not accept as it is: content too large, or a full server until the deadline.

`RetryWait` is the wait between two tries of such a commit; it reports a long wait in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.errors import StoreFull, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.safety import messages
from worker.tasks.store_retry import RETRY_INTERVAL_S
from worker.telemetry.events import emit

_MAX_INTERVAL_FULL_S: Final = 5.0  # a full Redis is asked less and less often
_REPORT_AFTER_S, _REPORT_EVERY_S = 5.0, 30.0


def ends_job(drafts: Sequence[EventDraft]) -> bool:
    """Return whether these facts end the job."""
    return any(isinstance(fact, ev.TERMINAL_FACTS) for fact, _ in drafts)


def without_content(drafts: Sequence[EventDraft]) -> list[EventDraft]:
    """Return the facts for content that can't be stored: no answer is delivered, no draft shown; a block stays one."""
    out: list[EventDraft] = []
    for fact, number in drafts:
        if isinstance(fact, ev.Completed):
            out.append((ev.Failed(error=messages.job_error("answer_too_large")), None))
        elif not isinstance(fact, ev.DraftReady):
            out.append((fact, number))
    return out


class RetryWait:
    """Waits between the tries of one commit."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._began, self._tries, self._reported_after = clock, clock.monotonic(), 0, 0.0

    async def wait(self, error: StoreUnavailable, left: float) -> None:
        """Return when it is time to try again; `left`: seconds until the job's deadline."""
        self._tries += 1
        full = isinstance(error, StoreFull)
        waited = self._clock.monotonic() - self._began
        interval = _REPORT_EVERY_S if self._reported_after else _REPORT_AFTER_S
        if (full and not self._reported_after) or waited - self._reported_after >= interval:
            self._reported_after = max(waited, 0.001)
            emit("commit.waiting", reason=error.reason, seconds=round(waited, 1))
        pause = RETRY_INTERVAL_S
        if full:
            pause = min(_MAX_INTERVAL_FULL_S, RETRY_INTERVAL_S * 2 ** min(self._tries - 1, 10))
        await asyncio.sleep(max(RETRY_INTERVAL_S, min(pause, left)))
