"""Turns the facts of a commit into telemetry events, each once, after the commit is durable.

Called by the store alone, so that every commit is covered: of a run, a sweep or the API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from worker.jobs import events as ev
from worker.jobs.record import Attempt, Check, Job
from worker.jobs.states import Status
from worker.safety.output import REPAIR_FLAGS
from worker.telemetry.events import emit

TelemetryEvent = tuple[str, dict[str, Any]]


def emit_committed(before: Job | None, after: Job, trail: Iterable[ev.Event]) -> None:
    """Emit the telemetry events of these events of the job."""
    common = {"job_id": after.id, "app": after.app}
    trace = trace_id(after.trace)
    if trace:
        common["trace_id"] = trace
    for event in trail:
        for name, fields in _events_of(before, after, event):
            if event.attempt is not None:
                fields.setdefault("attempt", event.attempt)
            emit(name, **common, **fields)


def trace_id(carrier: dict[str, str]) -> str:
    """Return the id of the trace that a submit's carrier belongs to; "" if there is none."""
    return carrier.get("sentry-trace", "")[:32]


def _events_of(before: Job | None, job: Job, event: ev.Event) -> Iterator[TelemetryEvent]:  # noqa: C901, PLR0912  one table of cases
    fact, model = event.fact, job.requested_model
    match fact:
        case ev.Queued():
            yield "job.submitted", {"model": model, "priority": fact.priority}
        case ev.Started():
            if before is not None and before.started_at is None:
                yield "job.started", {"model": model, "wait_seconds": _waited(job, event.at), "worker": fact.worker}
        case ev.Scheduled():
            yield "job.scheduled", {"reason": fact.reason.value, "code": fact.hold_reason, "scope": fact.hold_scope}
        case ev.Rescued():
            yield "job.rescued", {"generation": fact.generation, "worker": fact.worker}
        case ev.Interrupted():
            yield "job.interrupted", {"worker": fact.worker}
        case ev.ModelSubstituted():
            disclosure = fact.disclosure
            yield (
                "model.substituted",
                {
                    "model": model,
                    "served": disclosure.served_model,
                    "reason": disclosure.reason,
                    "decided_by": disclosure.decided_by,
                },
            )
        case ev.CheckStarted():
            yield "check.started", {"model": _model_of(job, event), "evidence": fact.evidence.value}
        case ev.CheckEnded():
            yield "check.ended", {"model": _model_of(job, event), **_check(job, event, fact)}
        case ev.AttemptStarted():
            yield (
                "attempt.started",
                {"model": fact.model, "purpose": fact.purpose.value, "mode": fact.mode, "account": fact.account},
            )
        case ev.AttemptFinished() if event.attempt is not None:
            yield "attempt.finished", _attempt(job, job.attempt(event.attempt), event.at)
            for flag in sorted(REPAIR_FLAGS.intersection(fact.flags)):
                yield "answer.mended", {"model": _model_of(job, event), "what": flag}
        case ev.Completed() | ev.Blocked() | ev.Failed() | ev.Cancelled() | ev.Expired():
            if job.block is not None:
                block = job.block
                fields = {"category": block.category, "code": block.code, "carrier": block.carrier}
                yield "job.blocked", {"model": model, **fields}
            yield "job.settled", _settled(job)
        case _:
            pass


def _waited(job: Job, at: datetime) -> float:
    """Return how long the job has waited, not counting the time before `not_before`."""
    since = max(job.created_at, job.not_before) if job.not_before else job.created_at
    return max(0.0, (at - since).total_seconds())


def _model_of(job: Job, event: ev.Event) -> str:
    return job.attempt(event.attempt).model if event.attempt else job.requested_model


def _check(job: Job, event: ev.Event, fact: ev.CheckEnded) -> dict[str, Any]:
    checks = [c for c in job.checks if c.attempt == event.attempt and c.ended_at is not None]
    found = next((c for c in reversed(checks) if c.ended_at == event.at), checks[-1] if checks else None)
    if found is None:
        return {"evidence": "suspected", "ended_by": fact.ended_by.value, "seconds": 0.0}
    return {"evidence": found.evidence.value, "ended_by": fact.ended_by.value, "seconds": _took(found)}


def _took(check: Check) -> float:
    return max(0.0, (check.ended_at - check.started_at).total_seconds()) if check.ended_at else 0.0


def _attempt(job: Job, attempt: Attempt, at: datetime) -> dict[str, Any]:
    usage, first = attempt.usage, attempt.first_output_at
    fields: dict[str, Any] = {
        "model": attempt.model,
        "account": attempt.account,
        "served": attempt.served_model,
        "outcome": attempt.outcome.value if attempt.outcome else None,
        "code": attempt.error.code if attempt.error else None,
        "http_status": attempt.http_status,
        "request_id": attempt.request_id,
        "seconds": ((attempt.finished_at or at) - attempt.started_at).total_seconds(),
        "ttft_seconds": (first - attempt.started_at).total_seconds() if first else None,
        "check_seconds": sum(_took(c) for c in job.checks if c.attempt == attempt.number) or None,
        "cost_usd": float(attempt.cost) if attempt.cost is not None else None,
        "resumed": attempt.resumed or None,
    }
    if usage is not None:
        fields |= {
            "input_tokens": usage.input_tokens,
            "cached_input_tokens": usage.cached_input_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        }
    return {name: value for name, value in fields.items() if value is not None}


def _settled(job: Job) -> dict[str, Any]:
    end = job.finished_at or job.created_at
    fields: dict[str, Any] = {
        "status": job.status.value,
        "model": job.requested_model,
        "served": job.served_model,
        "disclosed": _disclosed(job) if job.status is Status.COMPLETED else None,
        "code": job.error.code if job.error else None,
        "attempts": len(job.attempts),
        "seconds": (end - job.started_at).total_seconds() if job.started_at else None,
        "refused": job.refused or None,
        "cost_usd": float(job.total_cost) if job.total_cost is not None else None,
        "check_seconds": sum(_took(c) for c in job.checks) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _disclosed(job: Job) -> str:
    """Return whether a substitution is disclosed; an alert relies on it (promise P3).

    The record can't be built without a disclosure; this looks at it once more.
    """
    if job.served_model == job.requested_model:
        return "not_needed"
    return "yes" if job.disclosure is not None else "no"
