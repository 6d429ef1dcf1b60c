"""Verifies the audit trail in this process when a person asks for it: one run at a time, in slices, with its progress.

It proves what `vigil audit verify` proves without `--records`, with the public keys that this process knows.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from api.runtime.background_work import BackgroundWork
from api.runtime.slices import Slices
from worker.audit.keyfile import load_or_create
from worker.audit.keys import Signer, TrustedKeys
from worker.audit.keytext import from_text
from worker.audit.report import Report
from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.settings import Settings
from worker.store.audit.trail import Trail
from worker.store.audit.verification import Pace, TrailVerification
from worker.store.connection.pool import Redis
from worker.telemetry.internal_errors import report_internal_error

_MAX_S: Final = 1_800.0
_AGAIN_S: Final = 30.0
_RECORDS, _SEALS, _JOBS = 200, 10, 200  # of one step: a seal takes 0.3 ms
_MAX_UNSEALED_S, _MAX_UNSEALED_ROUNDS = 600.0, 60  # as `vigil audit verify`

CheckFailure = Literal["no_key", "store_unavailable", "too_long", "internal_error"]


@dataclass(frozen=True, slots=True)
class TrailCheckState:
    """The newest run: since when, how far it is (`records` of about `total`), and its report once it is over."""

    started_at: datetime | None = None
    finished_at: datetime | None = None
    records: int = 0
    total: int = 0
    report: Report | None = None
    failure: CheckFailure | None = None

    @property
    def running(self) -> bool:
        """Return whether it is under way."""
        return self.started_at is not None and self.finished_at is None


class TrailCheck:
    """Runs verifications and keeps the newest result."""

    def __init__(self, redis: Redis, clock: Clock, settings: Settings, background: BackgroundWork) -> None:
        self._redis, self._clock, self._settings, self._background = redis, clock, settings, background
        self._ended_at = -_AGAIN_S
        self.state = TrailCheckState()

    def start(self) -> bool:
        """Start a run; return False while one is under way or has just ended."""
        if self.state.running or self._clock.monotonic() - self._ended_at < _AGAIN_S:
            return False
        self.state = TrailCheckState(started_at=self._clock.now())
        self._background.start("trail-check", self._run())
        return True

    async def _run(self) -> None:
        failure: CheckFailure | None = None
        try:
            public = public_keys(self._settings)
            if not public:
                failure = "no_key"
                return
            async with asyncio.timeout(_MAX_S):
                await self._verify(TrustedKeys(public))
        except TimeoutError:
            failure = "too_long"
        except StoreUnavailable:
            failure = "store_unavailable"
        except Exception as error:  # noqa: BLE001  it must be told, and the next run must be possible
            report_internal_error("api.broke", error)
            failure = "internal_error"
        finally:
            self._ended_at = self._clock.monotonic()
            self.state = replace(self.state, finished_at=self._clock.now(), failure=failure)

    async def _verify(self, trusted: TrustedKeys) -> None:
        self.state = replace(self.state, total=await Trail(self._redis, self._clock).length())
        slices = Slices()

        async def rest(records: int) -> None:
            if records > self.state.records:
                self.state = replace(self.state, records=records)
            await slices.rest()

        within = max(_MAX_UNSEALED_S, _MAX_UNSEALED_ROUNDS * self._settings.audit_seal_seconds)
        pace = Pace(_RECORDS, _SEALS, _JOBS, rest)
        report = await TrailVerification(self._redis, self._clock, trusted, within, pace).verify()
        self.state = replace(self.state, report=report, records=report.records)


def public_keys(settings: Settings) -> list[bytes]:
    """Return the public keys that verify this deployment's checkpoints, as far as this process knows them."""
    signer = signer_of(settings)
    return [*map(from_text, settings.audit_public_keys), *([signer.public] if signer is not None else [])]


def signer_of(settings: Settings) -> Signer | None:
    """Return this machine's signing key, or None if it has none that can be used."""
    given = settings.audit_key.get_secret_value() if settings.audit_key else None
    try:
        return load_or_create(given, settings.data_dir, None)
    except (OSError, ValueError):
        return None
