"""Bounds attempts to log in: how many may be under way, and how many may fail from one address in a minute.

Who has a live key or link always gets in, so that the failures of one do not lock out the others behind its proxy.
In memory, for the newest addresses. Must not know HTTP.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

from api.runtime.bounded_turns import BoundedTurns
from worker.clock import Clock

MAX_FAILURES: Final = 20
WINDOW_S: Final = 60.0
_MAX_ADDRESSES: Final = 10_000
_MAX_UNDER_WAY, _ATTEMPT_S = 64, 10.0


class LoginAttempts:
    """The attempts of this process. `turns`: those under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.turns = BoundedTurns(_MAX_UNDER_WAY, _ATTEMPT_S)
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when the window began, and how many

    def fail(self, address: str) -> int | None:
        """Count a failed attempt; return None, or in how many seconds to try again if there were too many."""
        name, now = _network(address), self._clock.monotonic()
        began, count = self._failures.pop(name, (now, 0))
        if now - began >= WINDOW_S:
            began, count = now, 0
        self._failures[name] = (began, count + 1)
        while len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return None if count < MAX_FAILURES else max(1, round(began + WINDOW_S - now))


def _network(address: str) -> str:
    """Return what is counted as one address: of IPv6 the network of 64 bits, which one machine has for itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    return parsed.exploded[:19] if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None else str(parsed)
