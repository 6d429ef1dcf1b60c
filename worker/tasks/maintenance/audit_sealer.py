"""Seals the audit trail: one of all workers in each round signs checkpoints over what is new and removes what is over.

Each worker ships the seals. Several at once are harmless: a seal is only taken behind the one that it names. Must not
know: what a record says.
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
from worker.store.lifecycle.retention import Retention
from worker.tasks.rounds import loop_pass
from worker.telemetry.events import emit

_PART_OF_A_ROUND = 0.9  # a turn ends before the next round begins


class AuditSealer:
    """Seals until cancelled; without a key it only says so."""

    def __init__(self, redis: ArqRedis, clock: Clock, settings: Settings) -> None:
        self._clock, self._seconds = clock, settings.audit_seal_seconds
        self._settings, self._trail, self._seals = settings, Trail(redis, clock), Seals(redis)
        self.retention = Retention(redis, clock, audit_ttl=settings.audit_ttl, result_ttl=settings.result_ttl)
        self._signer: Signer | None = None
        self._copy = ship.file_of(settings.audit_checkpoints) if settings.audit_checkpoints else None

    async def run(self) -> None:
        """A round every so many seconds."""
        self._signer = signer = await asyncio.to_thread(_signer, self._settings, self._clock)
        while True:
            with contextlib.suppress(StoreUnavailable):
                with loop_pass("seals"):
                    await self._round(signer)
                with loop_pass("clearing of what is over"):
                    await self.retention.clear()
            await asyncio.sleep(self._seconds)

    async def _round(self, signer: Signer | None) -> None:
        """What is new is sealed, what is over removed, and the copy has all seals."""
        try:
            if signer is not None and await self._seals.try_lock(self._seconds * _PART_OF_A_ROUND):
                await self.seal(signer)
                await self.retention.trim(signer)
            if self._copy is not None:
                await self.ship(self._copy)
        except (BadSeal, OSError, RecordUnreadable) as error:
            emit("audit.unsealed", error=type(error).__name__)

    async def leave(self) -> None:
        """What this worker wrote last is sealed before it goes: nobody else may come for long."""
        try:
            if self._signer is not None:
                await self.seal(self._signer)
            if self._copy is not None:
                await self.ship(self._copy)
        except (BadSeal, OSError) as error:
            emit("audit.unsealed", error=type(error).__name__)

    async def seal(self, signer: Signer) -> int:
        """Everything that is in the trail now is sealed; how many checkpoints that took."""
        made, last = 0, await self._seals.last()
        while rows := await self._trail.page(f"({last.last}" if last else "-", count=MAX_RECORDS):
            seal = checkpoint(signer, last, rows, self._clock.now())
            if not await self._seals.append(last, seal):
                break  # another one is at it
            last, made = seal, made + 1
        return made

    async def ship(self, path: Path) -> None:
        """The copy has every seal that Redis has. Raises BadSeal when the two disagree."""
        last = await asyncio.to_thread(ship.last_in, path)
        number = last.number if last else 0
        while seals := await self._seals.after_number(number):
            await asyncio.to_thread(ship.append, path, seals)
            number = seals[-1].number


def _signer(settings: Settings, clock: Clock) -> Signer | None:
    given = settings.audit_key.get_secret_value() if settings.audit_key else None
    try:
        return load_or_create(given, settings.data_dir, clock.dice)
    except (OSError, ValueError) as error:
        emit("audit.no_key", error=type(error).__name__)
        return None
