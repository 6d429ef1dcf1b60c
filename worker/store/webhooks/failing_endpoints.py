"""Endpoints that acknowledge nothing: since when, and when they are disabled. Counted by the script that records a try.

Operators are warned before an endpoint is disabled, and it is disabled only at a failed try, never for silence of its
app. An acknowledged message ends it, and so does making the endpoint active again, or giving it another URL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from arq.connections import ArqRedis

from worker.store import keys
from worker.store.errors import store_errors

_DAY_MS: Final = 86_400_000
_GRACE_SHARE: Final = 5
"""The warning comes a fifth of the time before the end: with five days, one day."""
_ROW: Final = re.compile(rb"(\d{1,16}) (\d{1,9}) (\d{1,16})")


@dataclass(frozen=True, slots=True)
class FailurePatience:
    """After how many days of failures an endpoint is disabled; 0 = never."""

    days: float = 0

    def as_ms(self) -> tuple[int, int, int]:
        """Return after how long it is warned of and is due, and how long after the warning at least, in ms."""
        whole = round(self.days * _DAY_MS)
        grace = whole // _GRACE_SHARE
        return whole - grace, whole, grace

    def disabled_at(self, failing: FailingEndpoint) -> int | None:
        """Return the time from which a failed try disables the endpoint, in ms since 1970; None for never."""
        warn, whole, grace = self.as_ms()
        if not whole:
            return None
        return max(failing.since_ms + whole, (failing.warned_ms or failing.since_ms + warn) + grace)


@dataclass(frozen=True, slots=True)
class FailingEndpoint:
    """Since when an endpoint has acknowledged nothing, in how many tries; `warned_ms`: when it was warned of, or 0."""

    since_ms: int
    tries: int
    warned_ms: int = 0


async def read_failing(redis: ArqRedis, endpoints: Sequence[str]) -> dict[str, FailingEndpoint]:
    """Return those of these endpoints that fail now."""
    if not endpoints:
        return {}
    async with store_errors("read failing endpoints", keys.FAILING_ENDPOINTS):
        rows = await redis.hmget(keys.FAILING_ENDPOINTS, list(endpoints))
    found = [(name, _ROW.fullmatch(raw)) for name, raw in zip(endpoints, rows, strict=True) if raw]
    return {name: FailingEndpoint(*(int(part) for part in row.groups())) for name, row in found if row is not None}
