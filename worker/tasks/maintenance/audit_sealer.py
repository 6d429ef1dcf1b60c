"""Seals the audit trail: in each round one worker signs checkpoints over what is new and removes what has expired.

Each worker ships the seals to its copy. Several sealers at once are harmless: Redis appends a seal only behind the one
that it names. What a record contains does not matter here.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from arq.connections import ArqRedis

from worker.audit import ship
from worker.audit.keyfile import load_or_create
from worker.audit.keys import Signer
from worker.audit.seals import MAX_RECORDS, BadSeal, checkpoint
from worker.clock import Clock
from worker.jobs.errors import RecordUnreadable, StoreUnavailable
from worker.settings import Settings
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.jobs.repository import retention_of
from worker.store.lifecycle.retention import Retention
from worker.tasks.loop import loop_pass
from worker.telemetry.events import emit

_ROUND_LOCK_SHARE = 0.9  # of a round: the lock expires before the next round begins


class AuditSealer:
    """Seals until cancelled; without a key it only reports that."""

    def __init__(self, redis: ArqRedis, clock: Clock, settings: Settings) -> None:
        self._clock, self._seconds = clock, settings.audit_seal_seconds
        self._settings, self._trail, self._seals = settings, Trail(redis, clock), Seals(redis)
        self.retention = Retention(redis, clock, retention_of(settings))
        self._signer: Signer | None = None
        self._copy = ship.file_of(settings.audit_checkpoints) if settings.audit_checkpoints else None

    async def run(self) -> None:
        """Seal and clean up every `audit_seal_seconds`."""
        self._signer = signer = await asyncio.to_thread(_signer, self._settings, self._clock)
        while True:
            with contextlib.suppress(StoreUnavailable):
                with loop_pass("seals"):
                    await self._round(signer)
                with loop_pass("clearing of what is over"):
                    await self.retention.clear()
            await asyncio.sleep(self._seconds)

    async def _round(self, signer: Signer | None) -> None:
        """Seal what is new and remove what has expired, if it is this worker's round; bring the copy up to date."""
        try:
            if signer is not None and await self._seals.try_lock(self._seconds * _ROUND_LOCK_SHARE):
                await self.seal(signer)
                await self.retention.trim(signer)
            if self._copy is not None:
                await self.ship(self._copy)
        except (BadSeal, OSError, RecordUnreadable) as error:
            emit("audit.unsealed", error=type(error).__name__)

    async def seal_last(self) -> None:
        """Seal what this worker wrote last before it stops: no other worker may run for long."""
        try:
            if self._signer is not None:
                await self.seal(self._signer)
            if self._copy is not None:
                await self.ship(self._copy)
        except (BadSeal, OSError) as error:
            emit("audit.unsealed", error=type(error).__name__)

    async def seal(self, signer: Signer) -> int:
        """Seal everything that is in the trail now, and return how many checkpoints that took."""
        made, last = 0, await self._seals.last()
        while rows := await self._trail.page(f"({last.last}" if last else "-", count=MAX_RECORDS):
            seal = checkpoint(signer, last, rows, self._clock.now())
            if not await self._seals.append(last, seal):
                break  # another worker has just sealed this
            last, made = seal, made + 1
        return made

    async def ship(self, path: Path) -> None:
        """Append every seal that the copy does not have yet. Raises BadSeal if copy and Redis disagree."""
        last = await asyncio.to_thread(ship.last_in, path)
        number = last.number if last else 0
        while seals := await self._seals.after_number(number):
            await asyncio.to_thread(ship.append, path, seals)
            number = seals[-1].number


def _signer(settings: Settings, clock: Clock) -> Signer | None:
    given = settings.audit_key.get_secret_value() if settings.audit_key else None
    try:
        return load_or_create(given, settings.data_dir, clock.random_bytes)
    except (OSError, ValueError) as error:
        emit("audit.no_key", error=type(error).__name__)
        return None
