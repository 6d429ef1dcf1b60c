"""End quarantines whose time is over: when the end user submits a job or one begins, or in the workers' sweep.

While no worker ran, nothing is lost: the next submit ends it, or the first sweep.
"""

from __future__ import annotations

from typing import Final

from arq.connections import ArqRedis

from worker.clock import Clock, from_ms, to_ms
from worker.jobs.errors import RecordUnreadable, Refused
from worker.store import keys
from worker.store.audit.noted_changes import Guard, NotedChanges
from worker.store.connection.pool import keyring_of
from worker.store.connection.store_clock import StoreClock
from worker.store.end_users.quarantine_rows import BY_VIGIL, LogEntry, load_row, remove_commands
from worker.store.errors import store_errors
from worker.store.values import read, report_unreadable
from worker.telemetry.events import emit

ENDED: Final = "quarantine.ended"
_WHY: Final = "its time is over"


async def end_quarantine(redis: ArqRedis, end_user: str, clock: Clock | None = None) -> bool:
    """Remove the row of an end user whose quarantine has run out, and record that in the trail of the app.

    `clock`: by default the time of Redis. Return False when the end user stays quarantined: Vigil did not write that
    row, so whoever changed it may have changed its end; or only a newer release can read it; or the app's trail is
    broken.
    """
    if clock is None:
        clock = StoreClock(redis, Clock())
        await clock.refresh()  # a script found it over by this time
    async with store_errors("end a quarantine", keys.QUARANTINE):
        raw = await redis.hget(keys.QUARANTINE, end_user)
    if raw is None:
        await _set_end(redis, end_user, 0)
        return True
    try:
        row = read(keys.QUARANTINE, raw, lambda raw: load_row(keyring_of(redis).macs, end_user, raw))
    except RecordUnreadable as error:
        report_unreadable(error)
        return False
    app, source, until_ms = row.app, row.source, row.until_ms
    if until_ms == 0 or until_ms > to_ms(clock.now()):
        await _set_end(redis, end_user, until_ms)
        return True  # it was renewed meanwhile
    entry = LogEntry(to_ms(clock.now()), "ended", source, BY_VIGIL, _WHY)
    data = {"safety_identifier": end_user, "source": source, "until": from_ms(until_ms).isoformat()}
    guard = Guard("field", keys.QUARANTINE, end_user, raw)
    try:
        noted = await NotedChanges(redis, clock).write(
            ENDED, remove_commands(end_user, entry), guard, app=app, by=BY_VIGIL, why=_WHY, data=data
        )
    except Refused as error:
        emit("quarantine.stays", app=app, code=error.code)
        return False
    if noted is not None:
        emit("quarantine.ended", app=app)
    return True


async def _set_end(redis: ArqRedis, end_user: str, until_ms: int) -> None:
    """Correct the end by which the sweep finds the row; 0 = it has none."""
    async with store_errors("correct the end of a quarantine", keys.QUARANTINE_ENDS):
        if until_ms:
            await redis.zadd(keys.QUARANTINE_ENDS, {end_user: until_ms})
        else:
            await redis.zrem(keys.QUARANTINE_ENDS, end_user)
