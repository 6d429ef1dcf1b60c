"""Groups of jobs: how many of each status there are, counted by the commits that change them.

`vigil:group:<app>:<group>` holds the counts, `vigil:grouped:<app>:<group>` the status that each job is counted with: a
change moves a job from the one to the other whatever its caller believes, so that no crash or repair makes them drift.
Both expire once all jobs have ended, when the last of these expires. The id of a group is no content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from arq.connections import ArqRedis

from worker.clock import to_ms
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.store import keys
from worker.store.commands import Command
from worker.store.errors import store_errors
from worker.store.values import count_of

_OPEN, _TOTAL, _CREATED, _ENDED = "open", "total", "created_at", "ended_at"
_GRACE_S: Final = 3600  # the counts outlive the jobs, so that no page shows jobs of a group that is not known


@dataclass(frozen=True, slots=True)
class JobGroup:
    """How a group stands. `ended_at`: when its last job ended; None while one is open."""

    id: str
    created_at: datetime
    ended_at: datetime | None
    total: int
    open: int
    counts: Mapping[str, int] = field(default_factory=dict)


def group_commands(before: Job | None, after: Job, keep_seconds: int) -> list[Command]:
    """Return what a script runs to count the job in its group: nothing for a job without one, or of the same status."""
    if after.group is None or (before is not None and before.status is after.status):
        return []
    at = to_ms(after.finished_at or after.created_at)
    names = (keys.group(after.app, after.group), keys.grouped(after.app, after.group))
    settled = "1" if after.settled else "0"
    return [("GROUP", *names, after.id, after.status.value, settled, keep_seconds + _GRACE_S, at)]


async def read_group(redis: ArqRedis, app: str, group: str) -> JobGroup | None:
    """Return how the app's group stands, or None if there is none."""
    async with store_errors("read the group", keys.group(app, group)):
        raw = await redis.hgetall(keys.group(app, group))
    counted = {name.decode(errors="replace"): count_of(value) or 0 for name, value in raw.items()}
    if not counted.get(_TOTAL):
        return None
    ended = counted.get(_ENDED)
    return JobGroup(
        group,
        created_at=_time(counted.get(_CREATED, 0)),
        ended_at=_time(ended) if ended and not counted.get(_OPEN) else None,
        total=counted[_TOTAL],
        open=counted.get(_OPEN, 0),
        counts={status.value: counted.get(status.value, 0) for status in Status},
    )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
