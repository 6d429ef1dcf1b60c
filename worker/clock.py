"""Time and dice for the rooms that act; the pure rooms get both as arguments."""

from __future__ import annotations

import asyncio
import os
import random
import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock and dice. Tests put their own in its place."""

    def now(self) -> datetime:
        """The wall clock, in UTC: for what is written down."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back: for what is waited for."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`: for pauses between two requests of one attempt."""
        await asyncio.sleep(seconds)

    def dice(self, size: int) -> bytes:
        """Unguessable bytes: for ids, tokens and keys."""
        return os.urandom(size)

    def chance(self) -> float:
        """A number in [0, 1): for jitter, never for secrets."""
        return random.random()  # noqa: S311


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970, as Redis scores hold them."""
    return round(at.timestamp() * 1000)
