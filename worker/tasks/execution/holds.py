"""The facts by which a job is held: for an account's circuit, a pause, or what this worker lacks. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from worker.jobs import events as ev
from worker.jobs.account_name import DEFAULT_ACCOUNT, missing_account
from worker.jobs.errors import Failure
from worker.jobs.events import EventDraft
from worker.jobs.record import Attempt, Job, ProviderError
from worker.jobs.states import CheckEnd, ScheduledReason
from worker.safety import retry
from worker.store.admission.pauses import Pause
from worker.tasks.account_connections import AccountConnection

_MIN_LACK_WAIT_S: Final = 60.0  # for a key or an account that another worker may have
_MAX_LACK_WAIT_S: Final = 1800.0


def hold_for_circuit(account: AccountConnection, reason: str, provider: ProviderError | None) -> EventDraft:
    """Return the fact that the job waits until the account's circuit closes; `provider`: what opened it."""
    hold = {"hold_scope": account.circuit.scope, "hold_reason": reason, "hold_provider": provider}
    name = None if account.name == DEFAULT_ACCOUNT else account.name
    return ev.Scheduled(reason=ScheduledReason.HOLD, hold_account=name, **hold), None


def hold_for_deployment(job: Job, number: int, failure: Failure, now: datetime, jitter: float) -> EventDraft:
    """Return the fact that the job waits for a time of its own: only the deployment of attempt `number` is at fault."""
    before = sum(1 for a in job.attempts if a.error is not None and a.error.code == failure.code)
    until = now + timedelta(seconds=retry.hold_delay(before + 1, jitter))
    scope = f"deployment:{job.attempt(number).model}"
    hold = {"hold_scope": scope, "hold_reason": failure.code, "hold_provider": failure.provider}
    return ev.Scheduled(reason=ScheduledReason.HOLD, until=until, **hold), None


def hold_for_pause(pause: Pause) -> EventDraft:
    """Return the fact that the job waits until the pause is over."""
    hold = {"hold_scope": pause.scope, "hold_reason": pause.note or "paused", "hold_by": pause.by}
    return ev.Scheduled(reason=ScheduledReason.HOLD, until=pause.until, **hold), None


def hold_for_key(job: Job, now: datetime) -> EventDraft:
    """Return the fact that the job waits for a worker that has its encryption key: longer, the older it is."""
    return _hold_for_lack(job, now, "encryption", "encryption_key_missing")


def hold_for_account(job: Job, now: datetime, account: str) -> list[EventDraft]:
    """Return the facts by which the job waits for a worker that has the account with which its response runs."""
    hold = _hold_for_lack(job, now, missing_account(account), "account_missing", account)
    return [*interrupt_checks(job), hold]


def resumable_attempts(job: Job) -> list[Attempt]:
    """Return the open attempts whose responses run at the provider and can be read on."""
    return [a for a in job.open_attempts if a.mode == "background" and a.response_id]


def interrupt_checks(job: Job) -> list[EventDraft]:
    """Return the facts that no worker watches the open checks for now."""
    return [
        (ev.CheckEnded(ended_by=CheckEnd.INTERRUPTED, repeats=check.repeats), check.attempt)
        for check in job.open_checks
    ]


def _hold_for_lack(job: Job, now: datetime, scope: str, reason: str, account: str | None = None) -> EventDraft:
    age = (now - job.created_at).total_seconds()
    until = now + timedelta(seconds=min(_MAX_LACK_WAIT_S, max(_MIN_LACK_WAIT_S, age / 4)))
    hold = {"hold_scope": scope, "hold_reason": reason, "hold_account": account}
    return ev.Scheduled(reason=ScheduledReason.HOLD, until=until, **hold), None
