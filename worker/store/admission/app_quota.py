"""Limit what an app may keep waiting and stored: a quota per app, checked by the script that creates the job.

Both values are derived, so they can't drift from what they count: the jobs waiting are the members of the app's indexes
of `queued` and `scheduled`; the bytes held are sizes that Redis states of a job's content, measured again by each
commit that changes it or ends the job (connection/content_size.lua) and by a recount (lifecycle/content_recount.py).
A third limit is nobody's setting: whatever an app's quota is, its jobs with all that belongs to them get a share of the
memory of Redis only; what does not depend on their content is counted by their events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from worker.jobs.errors import ContentTooLarge, QueueFull, QuotaLimit

MAX_WAITING: Final = 10_000_000
MAX_BYTES: Final = 2**50
"""The highest bounds that a quota may have."""
RETRY_AFTER_S: Final = {"jobs_waiting": 10, "bytes_held": 60, "memory_held": 60}
"""When an app may try again: jobs start by the second, content expires or is deleted by the minute."""
JOB_BYTES: Final = 3 * 1024
"""Bytes of memory that a job takes beside its content and its events: its keys and its places in indexes (measured)."""
EVENT_BYTES: Final = 1536
"""Bytes of memory of one event, with its audit record and its part of the job's record (measured)."""
EVENTS_OF_A_LIFE: Final = 6
"""With how many events a new job is counted, until its end or a change of its content is measured."""


@dataclass(frozen=True, slots=True)
class AppQuota:
    """The most jobs that an app may have waiting, and the most bytes of content that it may have stored.

    0 = any number. None, in an app's own quota only = what the settings say. `memory`: the most bytes of memory that
    its jobs may take, by the limit of the server.
    """

    waiting: int | None = 0
    bytes: int | None = 0
    memory: int = 0

    def over(self, default: AppQuota) -> AppQuota:
        """Return this quota with the default's bounds where it has none."""
        waiting = default.waiting if self.waiting is None else self.waiting
        return AppQuota(waiting, default.bytes if self.bytes is None else self.bytes)


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """How many jobs of an app wait, how many bytes of content it holds, in how many jobs and with how many events."""

    waiting: int
    bytes: int
    jobs: int = 0
    events: int = 0

    @property
    def memory(self) -> int:
        """Return how many bytes of memory its jobs take, about."""
        return self.bytes + self.jobs * JOB_BYTES + self.events * EVENT_BYTES


def exceeded(limit: QuotaLimit, current: int, size: int, quota: AppQuota) -> QueueFull | ContentTooLarge:
    """Return the error to raise for a job of `size` bytes that the script has refused."""
    bounds = {"jobs_waiting": quota.waiting, "bytes_held": quota.bytes, "memory_held": quota.memory}
    bound = bounds[limit] or 0
    if limit != "jobs_waiting" and size > bound:
        return ContentTooLarge(size, bound, of_app=True)
    return QueueFull(limit, current, bound, RETRY_AFTER_S[limit])


def dump(quota: AppQuota | None) -> list[int | None] | None:
    """Encode a quota for the app's record."""
    return None if quota is None else [quota.waiting, quota.bytes]


def load(app: bytes | None) -> AppQuota | None:
    """Decode the quota of an app's record; None = the default."""
    stored = json.loads(app).get("quota") if app else None
    if stored is None:
        return None
    waiting, size = (None if number is None else int(number) for number in stored)
    return AppQuota(waiting, size)
