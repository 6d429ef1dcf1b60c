"""Builds the audit record of one event: the event, its job's app, who served and decided, the full upstream call.

Pure, and content-free because events and records are. The last record of an attempt (`job.attempt.finished`) has all
that is known of that call, so each upstream call has one complete record.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.catalogue import dollars
from worker.jobs.events import AttemptStarted, Event, OfferAccepted
from worker.jobs.record import Attempt, Check, Disclosure, Job, JobError
from worker.jobs.timestamps import iso_utc
from worker.safety.policy import POLICY_VERSION

_COPIED_FIELDS: Final = (
    *("model", "mode", "client_request_id", "request_id", "response_id", "organization", "project", "http_status"),
    *("served_model", "service_tier", "resumed"),
)


def record_of(job: Job, event: Event, dumped: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the record of `event`; `job` is the job after it. Unknown values are null or missing.

    `dumped`: the event's wire form, if the caller has it already.
    """
    body = {
        **(dumped or event.dump()),
        "app": job.app,
        "key_id": job.key_id,
        "requested_model": job.requested_model,
        "served_model": job.served_model,
        "input_digest": job.input_digest,
        "disclosure": _disclosure(job.disclosure),
        "decision": _decision(job, event),
    }
    number = event.attempt
    if number is not None and 1 <= number <= len(job.attempts):
        body["call"] = _call(job.attempt(number))
        body["checks"] = [_check(c) for c in job.checks if c.attempt == number]
    if job.settled:
        body["cost"] = {"total": _money(job.total_cost), "wasted": _money(job.wasted_cost)}
    return body


def note_record(
    act: str, *, at: datetime, app: str, job_id: str | None, by: str, why: str, data: dict[str, Any]
) -> dict[str, Any]:
    """Return the record of an action on a job or on an app that is no event of a job."""
    return {
        "seq": None,
        "type": act,
        "at": iso_utc(at),
        "job_id": job_id,
        "attempt": None,
        "app": app,
        "data": {**data, "by": by, "reason": why},
    }


def _decision(job: Job, event: Event) -> dict[str, Any] | None:
    """Return who decided the event, if it was a decision: the policy (with its version), the app or the provider."""
    data = vars(event.fact)  # getattr with a default is slow on a pydantic model
    disclosure = data.get("disclosure")
    if isinstance(disclosure, Disclosure):
        by_policy = disclosure.decided_by == "policy"
        return {"by": disclosure.decided_by, "policy_version": POLICY_VERSION if by_policy else None}
    if isinstance(event.fact, OfferAccepted):  # by the version that made the offer: this is what was agreed to
        return {"by": "app", "key_id": event.fact.by, "policy_version": event.fact.policy_version}
    if (by := data.get("by")) is not None:
        return {"by": "app", "key_id": by, "policy_version": None}
    if isinstance(event.fact, AttemptStarted) and event.fact.because is not None:
        by = job.disclosure.decided_by if job.disclosure is not None else "policy"
        return {"by": by, "policy_version": POLICY_VERSION if by == "policy" else None}
    return None


def _call(attempt: Attempt) -> dict[str, Any]:
    raw = attempt.served_raw
    served = raw.get("terminal") or raw.get("header") or raw.get("created")
    return {
        **{name: getattr(attempt, name) for name in _COPIED_FIELDS},
        "purpose": attempt.purpose.value,
        "because": attempt.because,
        "outcome": attempt.outcome and attempt.outcome.value,
        "alias_target": served if served != attempt.model else None,
        "error": _error(attempt.error),
        "usage": attempt.usage and attempt.usage.model_dump(),
        "cost": _money(attempt.cost),
        **({"price": attempt.price.model_dump(mode="json")} if attempt.price is not None else {}),
        **({"unfiltered": True} if "unfiltered" in attempt.flags else {}),
        "egress_proxy": attempt.proxied,
        **({"account": attempt.account} if attempt.account != DEFAULT_ACCOUNT else {}),
        "latency_ms": {
            "provider": attempt.processing_ms,
            "first_event": _ms(attempt.started_at, attempt.first_event_at),
            "first_output": _ms(attempt.started_at, attempt.first_output_at),
            "total": _ms(attempt.started_at, attempt.finished_at),
        },
    }


def _error(error: JobError | None) -> dict[str, Any] | None:
    """Return class and code, Vigil's and the provider's, without messages."""
    if error is None:
        return None
    return {"class": error.type, "code": error.code, "provider": error.provider and error.provider.model_dump()}


def _check(check: Check) -> dict[str, Any]:
    return {
        "evidence": check.evidence.value,
        "started_at": iso_utc(check.started_at),
        "ended_at": check.ended_at and iso_utc(check.ended_at),
        "use_cases": list(check.use_cases),
        "reasons": list(check.reasons),
        "ended_by": check.ended_by and check.ended_by.value,
    }


def _disclosure(disclosure: Disclosure | None) -> dict[str, Any] | None:
    return None if disclosure is None else disclosure.model_dump(mode="json")


def _money(amount: Any) -> str | None:
    return None if amount is None else dollars(amount)


def _ms(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else round((end - start).total_seconds() * 1000)
