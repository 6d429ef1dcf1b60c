"""Remembers which API keys are used, and writes it to Redis beside the requests: each key at most once a minute."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable, StoreUnavailable
from worker.store.key_uses import KeyUses
from worker.store.values import report_unreadable

_EVERY_S: Final = 60.0
_TOGETHER_S: Final = 0.5
"""What is used within so long is written at once."""
_MAX_KNOWN: Final = 10_000


class KeyUseLog:
    """The uses that this process has seen. A key's last use is known to about a minute."""

    def __init__(self, uses: KeyUses, clock: Clock) -> None:
        self._uses, self._clock = uses, clock
        self._noted: dict[str, float] = {}
        self._fresh: dict[str, int] = {}
        self._any = asyncio.Event()

    def note(self, key_id: str, now: float) -> None:
        """Note that the key is used; `now`: the clock's `monotonic()`, which the caller has read anyway."""
        last = self._noted.get(key_id)
        if last is not None and now - last < _EVERY_S:
            return
        if len(self._noted) >= _MAX_KNOWN:
            self._noted.clear()
        self._noted[key_id] = now
        self._fresh[key_id] = to_ms(self._clock.now())
        self._any.set()

    async def run(self) -> None:
        """Write what is new until cancelled."""
        while True:
            await self._any.wait()
            await asyncio.sleep(_TOGETHER_S)
            await self.write()

    async def write(self) -> None:
        """Write what is new now; without Redis it is dropped, and the next minute has another."""
        self._any.clear()
        fresh, self._fresh = self._fresh, {}
        if not fresh:
            return
        try:
            with contextlib.suppress(StoreUnavailable):
                await self._uses.write(fresh)
        except RecordUnreadable as error:
            report_unreadable(error)
