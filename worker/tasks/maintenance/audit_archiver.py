"""Moves the sealed audit trail to the archive: in each round one worker archives, trims Redis and removes what is over.

While the archive can't be reached Redis keeps the trail, and each worker tells how far the archive is behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from arq.connections import ArqRedis

from worker.audit.keyfile import load_or_create
from worker.audit.keys import Signer, TrustedKeys
from worker.audit.keytext import from_text
from worker.audit.seals import BadSeal
from worker.clock import Clock
from worker.jobs.errors import RecordUnreadable, StoreUnavailable
from worker.settings import Settings
from worker.store.archive.archive_state import ArchiveStates
from worker.store.archive.attached import archive_of
from worker.store.archive.audit_archive import ArchiveDamaged, ArchiveUnavailable, AuditArchive
from worker.store.audit.archive_lag import archive_lag
from worker.store.connection import locks
from worker.store.jobs.repository import retention_of
from worker.store.lifecycle.archive_retention import ArchiveRetention
from worker.store.lifecycle.archiver import Archiver, ArchiveRefused
from worker.store.lifecycle.trimming import Trimming
from worker.tasks.loop import loop_pass
from worker.telemetry.events import emit

_MAX_ROUND_S: Final = 60.0
_REPORT_S: Final = 600.0
"""A failure is told once in so many seconds, over all workers."""


class AuditArchiver:
    """Archives until cancelled; without an archive or a key it only waits."""

    def __init__(self, redis: ArqRedis, clock: Clock, settings: Settings) -> None:
        self._redis, self._clock, self._settings = redis, clock, settings
        self._seconds = max(settings.audit_seal_seconds, min(_MAX_ROUND_S, settings.audit_redis_ttl / 20))

    async def run(self) -> None:
        """Archive, trim and clean up, a round every minute at least."""
        archive = archive_of(self._redis)
        signer = await asyncio.to_thread(self._signer) if archive is not None else None
        while True:
            if archive is not None and signer is not None:
                with contextlib.suppress(StoreUnavailable), loop_pass("archiving"):
                    if await ArchiveStates(self._redis).try_lock(0.9 * self._seconds):
                        await self.round(archive, signer)
            await asyncio.sleep(self._seconds)

    async def round(self, archive: AuditArchive, signer: Signer) -> None:
        """Do all that is due once; what fails is told, and done in a later round."""
        trusted = TrustedKeys([signer.public, *map(from_text, self._settings.audit_public_keys)])
        ttl = self._trimmed_after()
        archiver = Archiver(self._redis, self._clock, archive, signer, trusted, ttl)
        keep = retention_of(self._settings)
        try:
            archived = await archiver.run()
            trimmed = await Trimming(self._redis, self._clock).run(await archiver.state(), archive, ttl)
            removal = ArchiveRetention(self._redis, self._clock, archive, signer, keep)
            removed = await removal.run(await archiver.state())
        except (ArchiveRefused, ArchiveDamaged, ArchiveUnavailable, BadSeal, RecordUnreadable) as error:
            lag = await archive_lag(self._redis, self._clock) or 0
            if await locks.should_warn(self._redis, "unarchived", _REPORT_S):
                emit("audit.unarchived", error=type(error).__name__, lag_seconds=round(lag))
            return
        for what, count in (("archived", archived), ("trimmed", trimmed), ("removed", removed)):
            if count:
                emit("audit.archived", what=what, count=count)

    def _trimmed_after(self) -> float:
        """Return after how many seconds records leave Redis: never later than their retention ends."""
        keep = retention_of(self._settings)
        return min(self._settings.audit_redis_ttl, max(keep.audit, keep.result))

    def _signer(self) -> Signer | None:
        """Return the key that the seals are signed with too, or None if there is none: the sealer says so."""
        given = self._settings.audit_key.get_secret_value() if self._settings.audit_key else None
        try:
            return load_or_create(given, self._settings.data_dir, self._clock.random_bytes)
        except (OSError, ValueError):
            return None
