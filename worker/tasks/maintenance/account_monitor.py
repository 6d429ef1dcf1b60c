"""Says once in the log when the account's state, or that of a family of models, has changed.

Must not know: how a state is found.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.catalogue import Catalogue
from worker.jobs.errors import StoreUnavailable
from worker.store.provider.account_state import read_account_state, record_changes
from worker.store.provider.safety_notices import SafetyNotices
from worker.tasks.rounds import loop_pass
from worker.telemetry.events import emit

INTERVAL: Final = 30.0
_ACCOUNT: Final = "account"


class AccountMonitor:
    """Looks twice a minute, until cancelled; of several workers the first that sees a change says it."""

    def __init__(self, redis: ArqRedis, catalogue: Catalogue, notices: SafetyNotices, clock: Clock) -> None:
        self._redis, self._catalogue, self._notices, self._clock = redis, catalogue, notices, clock

    async def run(self) -> None:
        """Looks through every loss of Redis."""
        while True:
            with contextlib.suppress(StoreUnavailable), loop_pass("the account's state"):
                await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Every change since somebody last looked has been said."""
        now = await read_account_state(self._redis, self._catalogue, self._notices, self._clock.now())
        states: dict[str, str] = {name: one.state for name, (_, one) in now.families.items()}
        for name, state in (await record_changes(self._redis, {**states, _ACCOUNT: now.verdict.state})).items():
            because = ",".join(now.verdict.because) or "over"
            emit("account.state", model=name, status=state, code=because)
