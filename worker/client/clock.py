"""Time and randomness of the client, in one place so that a test can replace them."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime


class Clock:
    """The machine's clock and random numbers."""

    def now(self) -> datetime:
        """Return the wall clock in UTC, to compare with dates in headers."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back, to measure timeouts."""
        return time.monotonic()

    def random_hex(self, size: int) -> str:
        """Return `size` unguessable bytes as hexadecimal digits, for idempotency keys."""
        return os.urandom(size).hex()

    def jitter(self) -> float:
        """Return a number in [0, 1) that spreads retries; not for secrets."""
        return random.random()  # noqa: S311
