"""Time and randomness for code that acts; pure code gets both as arguments."""

from __future__ import annotations

import asyncio
import os
import random
import time
from datetime import UTC, datetime


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
        """Return unguessable bytes, for ids, tokens and keys."""
        return os.urandom(size)

    def random(self) -> float:
        """Return a number in [0, 1), for jitter, never for secrets."""
        return random.random()  # noqa: S311


def to_ms(at: datetime) -> int:
    """Return milliseconds since 1970, as scores in Redis have them."""
    return round(at.timestamp() * 1000)
