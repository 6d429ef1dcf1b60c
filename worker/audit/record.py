"""What an auditor reads of one event: the event, whose job it was, who served and decided, the whole upstream call.

Pure, and content-free because events and records are. The last record of an attempt (`job.attempt.finished`) tells all
that is known of that call, so each upstream call has a record that stands by itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from worker.jobs.catalogue import dollars
from worker.jobs.events import AttemptStarted, Event
from worker.jobs.record import Attempt, Check, Disclosure, Job, JobError
from worker.safety.policy import POLICY_VERSION

_AS_IT_IS: Final = (
    *("model", "mode", "client_request_id", "request_id", "response_id", "organization", "project", "http_status"),
    *("served_model", "service_tier", "resumed"),
)


def record_of(job: Job, event: Event, dumped: dict[str, Any] | None = None) -> dict[str, Any]:
    """The record of `event`; `job` is as the commit of it leaves the job. What is not known yet is null or missing.

    `dumped`: the event's wire shape, by whoever has it already.
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


def act_of(
    act: str, *, at: datetime, app: str, job_id: str | None, by: str, why: str, data: dict[str, Any]
) -> dict[str, Any]:
    """The record of something that was done to a job, or to all of an app, and is no event of a job's life."""
    return {
        "seq": None,
        "type": act,
        "at": _time(at),
        "job_id": job_id,
        "attempt": None,
        "app": app,
        "data": {**data, "by": by, "reason": why},
    }


def _decision(job: Job, event: Event) -> dict[str, Any] | None:
    """Who decided what this event tells, where somebody did: the policy (in which version), the app, the provider."""
    data = vars(event.fact)  # a pydantic model takes its time to say that it has no such field
    said = data.get("disclosure")
    if isinstance(said, Disclosure):
        by_policy = said.decided_by == "policy"
        return {"by": said.decided_by, "policy_version": POLICY_VERSION if by_policy else None}
    if (by := data.get("by")) is not None:
        return {"by": "app", "key_id": by, "policy_version": None}
    if isinstance(event.fact, AttemptStarted) and event.fact.because is not None:
        by = job.disclosure.decided_by if job.disclosure is not None else "policy"
        return {"by": by, "policy_version": POLICY_VERSION if by == "policy" else None}
    return None


def _call(attempt: Attempt) -> dict[str, Any]:
    raw = attempt.served_raw
    named = raw.get("terminal") or raw.get("header") or raw.get("created")
    return {
        **{name: getattr(attempt, name) for name in _AS_IT_IS},
        "purpose": attempt.purpose.value,
        "because": attempt.because,
        "outcome": attempt.outcome and attempt.outcome.value,
        "alias_target": named if named != attempt.model else None,
        "error": _error(attempt.error),
        "usage": attempt.usage and attempt.usage.model_dump(),
        "cost": _money(attempt.cost),
        "egress_proxy": attempt.proxied,
        "latency_ms": {
            "provider": attempt.processing_ms,
            "first_event": _ms(attempt.started_at, attempt.first_event_at),
            "first_output": _ms(attempt.started_at, attempt.first_output_at),
            "total": _ms(attempt.started_at, attempt.finished_at),
        },
    }


def _error(error: JobError | None) -> dict[str, Any] | None:
    """Class and code, ours and the provider's; no sentences."""
    if error is None:
        return None
    return {"class": error.type, "code": error.code, "provider": error.provider and error.provider.model_dump()}


def _check(check: Check) -> dict[str, Any]:
    return {
        "evidence": check.evidence.value,
        "started_at": _time(check.started_at),
        "ended_at": check.ended_at and _time(check.ended_at),
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


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
