"""Build the commands that put an unsettled job into a queue: ready (and its app's), later, or leased (and a slot).

An app's queue is the order in which its ready jobs are claimed; the ring of apps says which app is next. Both are
updated together with `ready` in one commit; the claim script does the same when it moves a job.
"""

from __future__ import annotations

from typing import Final

from worker.clock import to_ms
from worker.jobs.deadline import deadline_of
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY, Status
from worker.store import channels, keys
from worker.store.admission.pauses import scopes_of
from worker.store.commands import Command, CommandArg

RANKS: Final = {"high": 0, "default": 1, "low": 2}
RANK_STEP: Final = 10**13
"""More than any millisecond of this century, so a higher priority always goes first."""


def rank(job: Job) -> int:
    """Return the job's rank among its app's ready ones: by priority, then by age."""
    return RANKS[job.priority] * RANK_STEP + to_ms(job.created_at)


def script_fields(job: Job) -> tuple[CommandArg, ...]:
    """Return the fields of a job's hash that scripts read and that never change: app, rank, scopes of its pauses."""
    return ("app", job.app, "rank", rank(job), "stops", "\0".join(scopes_of(job)))


def queue_commands(before: Job | None, job: Job) -> list[Command]:
    """Return the commands that move the job to the queue of its status; a running job stays in `leased`."""
    if job.status in UNDER_WAY:
        return [("ZREM", keys.DEADLINE, job.id)]
    at, commands = rank(job), list[Command]()
    if before is not None:
        commands += [("ZREM", where, job.id) for where in (keys.READY, keys.LATER, keys.LEASED, keys.DEADLINE)]
        commands += [("ZREM", keys.app_queue(job.app), job.id), ("SREM", keys.slots(job.app), job.id)]
        commands += [("HDEL", keys.job(job.id), "tok"), ("ZADD", keys.RING, "NX", 0, job.app)]  # a slot may be free now
        commands.append(("LEAVE", keys.job(job.id), keys.places(""), keys.LIMITS, job.id))
    if job.settled:
        return commands
    if job.status is Status.QUEUED:
        commands += [("ZADD", where, at, job.id) for where in (keys.READY, keys.app_queue(job.app))]
        commands += [("ZADD", keys.RING, "NX", 0, job.app), ("PUBLISH", channels.WAKE, "1")]
    else:
        due = to_ms(job.next_attempt_at) if job.next_attempt_at else RANK_STEP
        commands += [("ZADD", keys.LATER, due, job.id), ("PUBLISH", channels.WAKE, "1")]
    deadline = deadline_of(job)
    if deadline is not None:
        commands.append(("ZADD", keys.DEADLINE, to_ms(deadline.at), job.id))
    return commands
