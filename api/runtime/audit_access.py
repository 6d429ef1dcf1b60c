"""What the console reads and does of the audit trail beside its verification: checkpoints, legal holds, exports.

Holds the Redis client, so that pages need none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

from api.runtime.background_work import BackgroundWork
from api.runtime.slices import Slices
from api.runtime.trail_check import public_keys, signer_of
from worker.audit.export import manifest
from worker.audit.seals import BadSeal, Seal
from worker.clock import Clock, from_ms
from worker.jobs.errors import Refused
from worker.jobs.timestamps import iso_utc
from worker.settings import Settings
from worker.store.audit.acts import EXPORTED, Actor, Acts
from worker.store.audit.export import Export
from worker.store.audit.seals import Seals
from worker.store.audit.trail_search import TrailFilter
from worker.store.connection.pool import Redis
from worker.store.jobs.repository import retention_of
from worker.store.lifecycle.legal_holds import LegalHolds

_WAIT_S: Final = 1.0
_EXPORT_PAGE: Final = 250
_MAX_CHAINS: Final = 50_000
"""Jobs that the manifest of an export names; it is one signed value, built at once."""


@dataclass(frozen=True, slots=True)
class ExportRange:
    """The app whose records are exported, and from when until when (ms)."""

    app: str
    after_ms: int | None
    before_ms: int


class AuditAccess:
    """Reads and acts that concern the trail as a whole."""

    def __init__(self, redis: Redis, clock: Clock, settings: Settings, background: BackgroundWork) -> None:
        self._redis, self._clock, self._settings, self._background = redis, clock, settings, background
        self._holds = LegalHolds(redis, clock, retention_of(settings))
        self._exporting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def newest_seals(self, limit: int) -> list[Seal]:
        """Return up to `limit` of the newest checkpoints and retention seals; none when one can't be read."""
        try:
            return await Seals(self._redis).newest(limit)
        except BadSeal:  # the verification names it
            return []

    async def holds(self, app: str) -> list[dict[str, Any]]:
        """Return the legal holds on the app and on its jobs, with who, why and since when."""
        return await self._holds.of_app(app)

    async def hold(self, name: str, actor: Actor, why: str) -> bool:
        """Place a hold (`hold_names.py`); return False while the content is still being kept.

        Raises Refused when it is held already.
        """
        return await self._background.finished("hold", self._holds.place(name, actor=actor, why=why), _WAIT_S)

    async def release(self, name: str, actor: Actor, why: str) -> bool:
        """Release a hold; return False while what it kept is still getting its time back. Raises Refused."""
        return await self._background.finished("release", self._holds.release(name, actor=actor, why=why), _WAIT_S)

    async def record_export(self, wanted: ExportRange, actor: Actor) -> None:
        """Record in the trail of the app that somebody is about to get this export."""
        times = {"after": wanted.after_ms, "before": wanted.before_ms}
        shown: dict[str, Any] = {name: None if ms is None else iso_utc(from_ms(ms)) for name, ms in times.items()}
        await Acts(self._redis, self._clock, actor).record(EXPORTED, app=wanted.app, **shown)

    async def export_lines(self, wanted: ExportRange) -> AsyncIterator[bytes]:
        """Yield the export's lines as `vigil audit export --app` writes them, some at a time, in slices."""
        async with self._turn_of(wanted.app):
            slices = Slices()
            async for lines in self._export(wanted).lines():
                if lines:
                    yield b"".join(line + b"\n" for line in lines)
                await slices.rest()

    async def export_manifest(self, wanted: ExportRange) -> bytes:
        """Return the manifest of the export of this range. Raises Refused for one of too many jobs."""
        export, slices = self._export(wanted), Slices()
        async with self._turn_of(wanted.app):
            async for _ in export.lines():
                await slices.rest()
                if len(export.manifest.chains) > _MAX_CHAINS:
                    detail = f"An export from here has at most {_MAX_CHAINS:,} jobs; use `vigil audit export --app`."
                    raise Refused("export_too_large", detail, 422)
        times = {"after": wanted.after_ms, "before": wanted.before_ms}
        filters = {name: None if ms is None else iso_utc(from_ms(ms)) for name, ms in times.items()}
        return manifest(
            export.manifest,
            export.seals,
            filters={"app": wanted.app, **filters},
            public=public_keys(self._settings),
            signer=signer_of(self._settings),
            at=self._clock.now(),
        )

    def _turn_of(self, app: str) -> asyncio.Lock:
        """Return the lock of the app's exports: one at a time, for as long as its client takes; no other app waits."""
        lock = self._exporting.get(app)
        if lock is None:
            lock = self._exporting[app] = asyncio.Lock()
        return lock

    def _export(self, wanted: ExportRange) -> Export:
        return Export(
            self._redis, self._clock, TrailFilter(wanted.app), wanted.after_ms, wanted.before_ms, _EXPORT_PAGE
        )
