"""Count an abnormal end of a job in the commit that ends it, for `worker/store/stats/incidents.py` to report."""

from __future__ import annotations

import json
from typing import Final

from worker.jobs.record import Job
from worker.store import keys
from worker.store.commands import Command
from worker.telemetry import sentry_issues
from worker.telemetry.incidents import INCIDENTS
from worker.telemetry.job_ends import end_of

INCIDENTS_TTL_S: Final = 2 * 86_400


def end_commands(before: Job | None, after: Job) -> list[Command]:
    """Return the commands by which the commit of an abnormal end counts it; none if nobody is told of incidents."""
    found = end_of(before, after) if INCIDENTS.wanted and after.settled else None
    if found is None:
        return []
    cause, fields = found
    group = sentry_issues.group_of(cause, fields)
    described = {"tags": sentry_issues.tags("job.settled", fields), "trace": after.trace.get("sentry-trace", "")[:49]}
    return [
        ("HINCRBY", keys.INCIDENTS, f"n:{group}", 1),
        ("HSET", keys.INCIDENTS, f"d:{group}", json.dumps(described)),
        ("EXPIRE", keys.INCIDENTS, INCIDENTS_TTL_S),
    ]
