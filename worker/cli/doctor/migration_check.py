"""The check of `vigil doctor` for the migrations of the store: how far they are, and which processes they wait for."""

from __future__ import annotations

from typing import Final

from worker.cli.doctor.check import DoctorCheck
from worker.clock import Clock
from worker.jobs.errors import RecordUnreadable
from worker.store.connection.pool import Redis
from worker.store.lifecycle.migrations import migrations_of
from worker.store.stats.migration_progress import read_migrations

_MAX_NAMED: Final = 5
_FIX: Final = "replace them by this release (ops/upgrading.md)"


async def migration_check(redis: Redis, clock: Clock) -> DoctorCheck:
    """Check whether all migrations that this release knows are done."""
    try:
        found = await read_migrations(redis, clock)
    except RecordUnreadable as error:
        return DoctorCheck("migrations", "problem", str(error), "start a worker: it sets aside what can't be read")
    left = [one for one in found if one.progress.state != "done"]
    if not left:
        return DoctorCheck("migrations", "ok", f"all {len(found)} are done")
    first = left[0]
    what = next(one.what for one in migrations_of(redis, clock) if one.number == first.number)
    detail = f"{len(found) - len(left)} of {len(found)} are done; number {first.number}, after which {what},"
    if first.waits_for:
        named = ", ".join(f"{one.kind} {one.id}" for one in first.waits_for[:_MAX_NAMED])
        more = len(first.waits_for) - _MAX_NAMED
        others = f" and {more} more" if more > 0 else ""
        return DoctorCheck("migrations", "warning", f"{detail} waits for older processes to end: {named}{others}", _FIX)
    if first.progress.state == "running":
        return DoctorCheck("migrations", "ok", f"{detail} is under way: {first.progress.count:,} values so far")
    return DoctorCheck("migrations", "ok", f"{detail} begins as soon as a worker looks, every five seconds")
