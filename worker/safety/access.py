"""Decides whether this account may call a model, from probes and from real attempts.

A model is skipped only if a real attempt was denied and the latest probe since then confirms it: a probe alone may be
wrong about a call, and one denial may be a hiccup. Pure: it must not depend on Redis, the provider or jobs.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final, Literal, NamedTuple

from pydantic import Field

from worker.jobs.errors import Failure
from worker.jobs.frozen import StoredRecord
from worker.jobs.states import Outcome
from worker.safety.messages import job_error

AccessStatus = Literal[
    "ok", "not_granted", "wrong_project", "wrong_organization", "region", "key", "network", "quota", "unknown"
]
DENIED: Final[frozenset[AccessStatus]] = frozenset({"not_granted", "wrong_project"})
"""The statuses that concern this model and this account only."""

FIRST_PROBE_DELAY, MAX_PROBE_DELAY = timedelta(seconds=30), timedelta(minutes=10)
"""The wait before a skipped model is probed again; each denial doubles it up to the maximum."""


class Diagnosis(NamedTuple):
    """The result of one probe; `code` names its message."""

    status: AccessStatus
    code: str


_FORBIDDEN: Final = 403
_BY_CODE: Final[dict[str, Diagnosis]] = {
    "model_not_granted": Diagnosis("not_granted", "model_not_granted"),
    "program_required": Diagnosis("not_granted", "program_required"),
    "verification_required": Diagnosis("not_granted", "verification_required"),
    "wrong_project": Diagnosis("wrong_project", "wrong_project"),
    "wrong_organization": Diagnosis("wrong_organization", "wrong_organization"),
    "region_unsupported": Diagnosis("region", "region_unsupported"),
    "data_residency_mismatch": Diagnosis("region", "data_residency_mismatch"),
    "edge_refused": Diagnosis("network", "edge_refused"),
    "not_found": Diagnosis("unknown", "probe_not_offered"),  # a compatible server without a model list
    "model_or_path_not_found": Diagnosis("unknown", "probe_not_offered"),
    "access_refused": Diagnosis("unknown", "probe_refused"),
}
_BY_OUTCOME: Final[dict[Outcome, AccessStatus]] = {
    Outcome.AUTH_FAILED: "key",
    Outcome.QUOTA_EXHAUSTED: "quota",
    Outcome.CONNECT_FAILED: "network",
    Outcome.STREAM_CUT: "network",
    Outcome.IDLE_TIMEOUT: "network",
}
OK: Final = Diagnosis("ok", "access_ok")
UNCLEAR: Final = Diagnosis("unknown", "probe_unclear")
NOT_OFFERED: Final = Diagnosis("unknown", "probe_not_offered")
NOT_LISTED: Final = Diagnosis("not_granted", "model_not_listed")


def diagnose(failure: Failure) -> Diagnosis:
    """Return what a probe's failure says about the access; a failure of another kind gives "unknown"."""
    if failure.code in _BY_CODE:
        return _BY_CODE[failure.code]
    status = _BY_OUTCOME.get(failure.outcome)
    if status == "network":
        return Diagnosis(status, failure.code if failure.outcome is Outcome.CONNECT_FAILED else "connect_failed")
    if status is not None:
        return Diagnosis(status, failure.code)
    if failure.provider is not None and failure.provider.http_status == _FORBIDDEN:
        return Diagnosis("unknown", "probe_refused")
    return UNCLEAR


def backoff(tries: int) -> timedelta:
    """Return the wait after probe number `tries` (from 1) that confirmed a denial."""
    return min(MAX_PROBE_DELAY, FIRST_PROBE_DELAY * (1 << min(max(tries - 1, 0), 10)))


class ModelAccess(StoredRecord):
    """The access to one model, since when, and the request that showed it. Has no content."""

    status: AccessStatus = "unknown"
    code: str = "access_not_probed"
    since: datetime | None = None
    probed_at: datetime | None = None
    request_id: str | None = None
    denied_by_attempt_at: datetime | None = None  # a real call was denied, and none has been answered since
    tries: int = 0  # probes since then that said the same
    next_probe_at: datetime | None = None
    shutdown_date: date | None = Field(default=None, exclude_if=lambda value: value is None)
    """The day on which the provider will shut the model down, as it says."""

    @property
    def advice(self) -> str:
        """Return what to do next, in one sentence."""
        return job_error(self.code).advice

    @property
    def skipped(self) -> bool:
        """Return whether the model is not called: a real attempt was denied, and the latest probe confirms it."""
        return self.denied_by_attempt_at is not None and self.status in DENIED and self.tries > 0

    def after_probe(
        self, found: Diagnosis, request_id: str | None, now: datetime, shutdown_date: date | None = None
    ) -> ModelAccess:
        """Return the state after a probe. A model that is listed again is called again at once."""
        denied = None if found.status == "ok" else self.denied_by_attempt_at
        confirmed = denied is not None and found.status in DENIED
        return ModelAccess(
            status=found.status,
            code=found.code,
            since=self._since(found.status, now),
            probed_at=now,
            request_id=request_id,
            denied_by_attempt_at=denied,
            tries=max(1, self.tries) if confirmed else 0,
            next_probe_at=(self.next_probe_at or now + backoff(1)) if confirmed else None,
            shutdown_date=shutdown_date if found.status == "ok" else shutdown_date or self.shutdown_date,
        )

    def after_denial(self, now: datetime) -> ModelAccess | None:
        """Return the state after a real call was denied, or None if nothing changes."""
        return None if self.skipped else self.evolve(denied_by_attempt_at=now, tries=0, next_probe_at=None)

    def after_answer(self, request_id: str | None, now: datetime) -> ModelAccess | None:
        """Return the state after this model answered a real call, the best probe, or None if nothing changes."""
        if self.status == "ok" and self.denied_by_attempt_at is None:
            return None
        since = self._since("ok", now)
        return ModelAccess(
            status="ok",
            code=OK.code,
            since=since,
            probed_at=self.probed_at,
            request_id=request_id,
            shutdown_date=self.shutdown_date,
        )

    def due(self, now: datetime) -> bool:
        """Return whether a skipped model is due for the next probe."""
        return self.skipped and (self.next_probe_at is None or self.next_probe_at <= now)

    def after_claim(self, now: datetime) -> ModelAccess | None:
        """Return the state after a worker has claimed the next probe, or None if it is not due."""
        if not self.due(now):
            return None
        return self.evolve(tries=self.tries + 1, next_probe_at=now + backoff(self.tries + 1))

    def _since(self, status: AccessStatus, now: datetime) -> datetime:
        return self.since if self.status == status and self.since is not None else now
