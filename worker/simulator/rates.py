"""Limits calls and tokens a minute as the provider does: by key, project and model, with headers of what is left.

A bucket holds a minute's worth and fills steadily. Times are real ones, however fast the simulator's clock is: clients
wait in real time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Who = tuple[str, str, str]
_BYTES_PER_TOKEN = 4


class _Bucket:
    def __init__(self, per_minute: int, left: float, now: float) -> None:
        self.limit, self.left, self.at = per_minute, left, now

    def fill(self, now: float) -> None:
        self.left, self.at = min(self.limit, self.left + (now - self.at) * self.limit / 60), now

    def wait(self, amount: float) -> float:
        return max(0.0, (min(amount, self.limit) - self.left) * 60 / self.limit)


class Rates:
    """`rpm` and `tpm`: calls and tokens a minute for each key, project and model; 0 = any number."""

    def __init__(self, rpm: int = 0, tpm: int = 0, now: Callable[[], float] = time.monotonic) -> None:
        """Raise ValueError for a negative number."""
        self._now, self._buckets = now, dict[tuple[Who, str], _Bucket]()
        self.change(rpm, tpm)

    def change(self, rpm: int, tpm: int, used: float = 0.0) -> None:
        """Set the limits anew; `used`: the share of each bucket that others have used up. Raise ValueError for a number
        out of range.
        """
        if rpm < 0 or tpm < 0 or not 0 <= used <= 1:
            raise ValueError("a rate is a number from 0, and what is used of it a share from 0 to 1")
        self._used = used
        self._limits = {kind: limit for kind, limit in (("requests", rpm), ("tokens", tpm)) if limit}
        self._buckets.clear()

    def take(self, who: Who, body_bytes: int, max_output: int) -> float:
        """Take a call and its tokens, by size and by the most that may come; return 0, or the seconds to wait."""
        costs = {"requests": 1.0, "tokens": body_bytes / _BYTES_PER_TOKEN + max_output}
        buckets = {kind: self._bucket(who, kind) for kind in self._limits}
        wait = max((bucket.wait(costs[kind]) for kind, bucket in buckets.items()), default=0.0)
        if wait <= 0:
            for kind, bucket in buckets.items():
                bucket.left -= costs[kind]
        return wait

    def headers(self, who: Who) -> dict[str, str]:
        """Return the headers that say what is left; none without limits."""
        out: dict[str, str] = {}
        for kind, limit in self._limits.items():
            left = max(0.0, self._bucket(who, kind).left)
            out[f"x-ratelimit-limit-{kind}"] = str(limit)
            out[f"x-ratelimit-remaining-{kind}"] = str(int(left))
            out[f"x-ratelimit-reset-{kind}"] = f"{(limit - left) * 60_000 / limit:.0f}ms"
        return out

    def _bucket(self, who: Who, kind: str) -> _Bucket:
        now = self._now()
        bucket = self._buckets.setdefault(
            (who, kind), _Bucket(self._limits[kind], self._limits[kind] * (1 - self._used), now)
        )
        bucket.fill(now)
        return bucket
