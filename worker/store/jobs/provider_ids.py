"""Find the job behind an id of the provider: a request id, a response id, a safety identifier.

The reference is written in the commit that learns the id, and kept as long as the job can be. It holds no content: an
end user appears under the identifier that the provider knows, never under the app's own name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from arq.connections import ArqRedis

from worker.jobs import events as ev, ids
from worker.jobs.record import Job
from worker.store import keys
from worker.store.commands import Command
from worker.store.errors import store_errors
from worker.store.values import read

_END_USER_TTL_S: Final = 90 * 86_400
"""Seconds that an end user can be found after the last job: a warning is followed by a deactivation after days."""
_MAX_JOBS: Final = 10


class EndUserJobs(NamedTuple):
    """The app of an end user, and that end user's newest jobs."""

    app: str
    jobs: tuple[str, ...]


def ref_commands(before: Job | None, after: Job, trail: Sequence[ev.Event], keep: int) -> list[Command]:
    """Return the commands that a commit of these events adds; `keep`: seconds that a settled job is kept."""
    commands: list[Command] = []
    if before is None and after.safety_identifier:
        owner = json.dumps(after.app)
        commands.append(("SET", keys.ref("user", after.safety_identifier), owner, "EX", max(keep, _END_USER_TTL_S)))
    kept = keep + int(after.policy.run_deadline_seconds)
    for event in trail:
        fact = event.fact
        if isinstance(fact, ev.AttemptUpdated):
            for kind, name in (("request", fact.request_id), ("response", fact.response_id)):
                if name is not None:
                    commands.append(("SET", keys.ref(kind, name), after.id, "EX", kept))
    return commands


async def job_of(redis: ArqRedis, request_id: str | None, response_id: str | None) -> str | None:
    """Return the id of the job that made this request or got this response, or None."""
    names = [keys.ref(kind, name) for kind, name in (("request", request_id), ("response", response_id)) if name]
    if not names:
        return None
    async with store_errors("look for the job"):
        found = await redis.mget(names)
    named = (row.decode(errors="replace") for row in found if row)
    return next((job_id for job_id in named if ids.is_job_id(job_id)), None)


async def end_user_of(redis: ArqRedis, safety_identifier: str) -> EndUserJobs | None:
    """Return the app and the newest jobs of a safety identifier; None for an unknown one."""
    name = keys.ref("user", safety_identifier)
    async with store_errors("look for the end user", name):
        owner = await redis.get(name)
        if owner is None:
            return None
        app = read(name, owner, lambda raw: str(json.loads(raw)))
        rows = await redis.zrevrange(keys.index(app, "user", safety_identifier), 0, _MAX_JOBS - 1)
    return EndUserJobs(app, tuple(row.decode(errors="replace") for row in rows))
