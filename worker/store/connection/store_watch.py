"""Watch whether this process can use its Redis: check every few seconds, and report changes and lasting outages.

`/readyz` says the same. While a permission is missing no job is submitted, claimed or changed: a script that may do
half of its work would leave half a job.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

from arq.connections import ArqRedis
from redis.exceptions import ResponseError

from worker.clock import Clock
from worker.jobs.errors import StoreChanged, StoreUnavailable, UnsafeStore
from worker.store.connection import capacity, command_rights
from worker.store.connection.memory_guard import MemoryGuard
from worker.store.connection.pool import set_missing_permissions
from worker.store.connection.required_commands import Role
from worker.store.errors import store_errors
from worker.telemetry.events import emit

Check = Callable[[], Awaitable[object]]
CHECK_TIMEOUT_S: Final = 1.0
"""How long one check may take."""
_CHECK_INTERVAL_S: Final = 2.0
_WRITE_INTERVAL_S: Final = 1.0  # between two writes of a process that can ask for the state instead
_RIGHTS_INTERVAL_S: Final = 5.0  # between two checks of permissions …
_RIGHTS_RETRY_S: Final = 1.0  # … and while one is missing
_REPORT_INTERVAL_S: Final = 30.0
_TIMED_OUT: Final = "Redis does not answer in time"


class StoreWatch:
    """Watches one Redis. `reason` is why it can't be used now, in one line; "" when it can."""

    def __init__(
        self,
        redis: ArqRedis,
        clock: Clock,
        role: Role,
        check: Check | None = None,
        memory: MemoryGuard | None = None,
        **fields: object,
    ) -> None:
        """`check` raises UnsafeStore for a server that would lose data; it runs once Redis answers, and again after an
        outage. `memory` knows whether there is room for new jobs, and saves most writes that only try whether Redis
        takes one. `fields` are added to each reported event.
        """
        self._memory, self._wrote_at = memory, -math.inf
        self._check, self._checked = check, False
        self._redis, self._clock, self._role, self._fields = redis, clock, role, fields
        self._rights_checked_at = -math.inf
        self._since: float | None = None
        self._reported_at = -math.inf
        self._missing_rights = ""
        self.reason = ""
        self.answers = True  # also one that is full or takes no writes
        self.changed = False  # Redis answers, but does not hold the store that this process knows

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(_CHECK_INTERVAL_S)

    async def check(self) -> str:
        """Check now and return the reason. Never takes longer than `CHECK_TIMEOUT_S`, never raises."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._check_rights()
                full = "" if self._missing_rights else await self._check_writes()
            reason, changed, answers = self._missing_rights or full, False, True
        except TimeoutError:
            reason, changed, answers = _TIMED_OUT, False, False
        except StoreUnavailable as error:
            reason, changed = error.reason, isinstance(error, StoreChanged)
            answers = isinstance(error.__context__, ResponseError)
            self._checked, self._rights_checked_at = False, -math.inf  # it may come back set up differently
            self._wrote_at = -math.inf
        self.changed, self.answers = changed, answers
        self._report(reason)
        return reason

    async def _check_writes(self) -> str:
        """Return why Redis takes no new job; "" when it does. Raises StoreUnavailable when it takes no write at all."""
        now, reason = self._clock.monotonic(), ""
        if self._memory is not None:
            async with store_errors("report its state"):
                reason = await self._memory.read()
        if self._memory is None or reason or now - self._wrote_at >= _WRITE_INTERVAL_S:
            await capacity.check_writable(self._redis)
            self._wrote_at = now
        return reason

    async def _check_rights(self) -> None:
        now = self._clock.monotonic()
        if now - self._rights_checked_at < (_RIGHTS_RETRY_S if self._missing_rights else _RIGHTS_INTERVAL_S):
            return
        rules = await command_rights.missing_rules(self._redis, self._role)
        self._rights_checked_at = now
        self._missing_rights = (
            command_rights.advice(await command_rights.user_of(self._redis), rules) if rules else await self._unsafe()
        )
        set_missing_permissions(self._redis, self._missing_rights)

    async def _unsafe(self) -> str:
        """Return why this server must not be used; "" when it may."""
        if self._check is None or self._checked:
            return ""
        try:
            await self._check()
        except UnsafeStore as error:
            return str(error)
        self._checked = True
        return ""

    def _report(self, reason: str) -> None:
        now = self._clock.monotonic()
        if not reason:
            if self._since is not None:
                emit("store.back", **self._fields, seconds=round(now - self._since, 3))
            self._since = None
        elif self._since is None:
            self._since = self._reported_at = now
            emit("store.away", **self._fields, reason=reason)
        elif reason != self.reason or now - self._reported_at >= _REPORT_INTERVAL_S:
            self._reported_at = now
            emit("store.waiting", **self._fields, reason=reason, seconds=round(now - self._since, 3))
        self.reason = reason
