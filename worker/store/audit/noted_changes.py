"""Change values together with the audit record that says who changed them and why: both are written, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from arq.connections import ArqRedis

from worker.audit.chain import GENESIS, AuditRow, app_chain, link
from worker.audit.record import note_record
from worker.clock import Clock
from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.audit.stream_records import stored_fields
from worker.store.audit.trail import Trail
from worker.store.commands import Command, flatten
from worker.store.connection.lua_scripts import RUN_COMMANDS, script
from worker.store.connection.pool import require_permissions, writes_compact
from worker.store.errors import store_errors

_MAX_TRIES: Final = 50


@dataclass(frozen=True, slots=True)
class Guard:
    """What must still be so when the change is written: the value that was read of a string or of a hash's field, or
    that a set has a member. The value None means that there was none.
    """

    kind: Literal["string", "field", "member"]
    key: str
    name: str = ""
    value: bytes | None = None


class NotedChanges:
    """Writes changes that concern an app, with their records in its chain."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._trail = redis, clock, Trail(redis, clock)
        self._script: Any = script(redis, *RUN_COMMANDS, "audit/note_change")

    async def write(
        self,
        act: str,
        commands: Sequence[Command],
        guard: Guard,
        *,
        app: str,
        by: str,
        why: str,
        data: dict[str, Any],
        at: datetime | None = None,
    ) -> AuditRow | None:
        """Run the commands and append the record of the act; return it, or None when the guard no longer holds.

        `at`: when it happened, by default now. The data must hold no content. Raises Refused for a broken chain.
        """
        require_permissions(self._redis)
        chain = app_chain(app)
        at = at or self._clock.now()
        record = note_record(act, at=at, app=app, job_id=None, by=by, why=why, data=data)
        names = [keys.AUDIT, keys.chain_records(chain), keys.job(chain), keys.NOTE_COUNT, guard.key]
        for _ in range(_MAX_TRIES):
            last = await self._trail.last_of_chain(chain)
            head, body = link(last.hash if last else GENESIS, record)
            fields = stored_fields(head, body, compact=writes_compact(self._redis))
            guarded = guard.kind, guard.name, guard.value or b""
            args = [last.id if last else "", head, *guarded, len(fields), *fields, *flatten(commands)]
            async with store_errors("write a change and its audit record", guard.key):
                verdict, *rest = await self._script(keys=names, args=args)
            if verdict == b"OK":
                return AuditRow(rest[0].decode(), head, body)
            if verdict == b"CHANGED":
                return None
        raise Refused("app_busy", "Many changes are being recorded for this app right now; try again.", 409)
