"""Time and randomness for code that acts; pure code gets both as arguments."""

from __future__ import annotations

import asyncio
import os
import random
import time
from datetime import UTC, datetime
from typing import Final

_POOL_BYTES: Final = 4096
_pool: list[bytes] = []
"""At most a few blocks of random bytes, read ahead because each read is a call into the kernel."""
os.register_at_fork(after_in_child=_pool.clear)  # or parent and child would hand out the same bytes


class Clock:
    """Provides the machine's clock and random numbers. Tests replace it."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC, for what is recorded."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back, for waits and durations."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; for pauses between two requests of one attempt."""
        await asyncio.sleep(seconds)

    def random_bytes(self, size: int) -> bytes:
        """Return unguessable bytes, for ids, tokens and keys; each byte is handed out once."""
        try:
            block = _pool.pop()  # atomic: no other thread has this block
        except IndexError:
            block = b""
        if len(block) < size:
            block = os.urandom(max(size, _POOL_BYTES))
        if len(block) > size:
            _pool.append(block[size:])
        return block[:size]

    def random(self) -> float:
        """Return a number in [0, 1), for jitter, never for secrets."""
        return random.random()  # noqa: S311


_MAX_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: a later one is no time."""


def to_ms(at: datetime) -> int:
    """Return milliseconds since 1970, as scores in Redis have them."""
    return min(round(at.timestamp() * 1000), _MAX_MS)


def from_ms(ms: float) -> datetime:
    """Return the time of milliseconds since 1970; the end of the year 9999 for anything later."""
    return datetime.fromtimestamp(min(ms, _MAX_MS) / 1000, UTC)
