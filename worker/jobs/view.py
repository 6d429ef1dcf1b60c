"""Renders a job as its app sees it, from record, private part and answer (contract section 3, "The job").

Pure. Makes the API's answers and the `full` bodies of webhooks. Output is shown for completed jobs only; times and
money stay exact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json

from worker.jobs.catalogue import dollars
from worker.jobs.record import Attempt, Check, Job, Usage
from worker.jobs.running_check import check_message, next_action
from worker.jobs.states import Outcome, Status
from worker.jobs.timestamps import iso_utc

LOCKED: Final = "locked"
"""The member of a private part that lists what can't be read, because its key is missing or it was changed."""
PRIVATE: Final = ("metadata", "webhook")
"""Members of the view that come from the private part."""
INPUT: Final = "input"
OUTPUT: Final = "output"
"""The name for the whole answer in the list of unreadable parts."""

_URLS: Final = {"self": "", "events": "/events", "cancel": "/cancel", "support_packet": "/support-packet"}

_HOLD_FIELDS: Final = ("scope", "reason", "since", "by")
_ATTEMPT_FIELDS: Final = (
    *("number", "model", "served_model", "purpose", "because", "outcome", "mode", "client_request_id"),
    *("request_id", "response_id", "organization", "project", "started_at", "first_event_at", "first_output_at"),
    *("finished_at", "http_status", "processing_ms", "resumed", "sequence", "served_raw", "flags", "service_tier"),
    "rate_limits",
)
"""Fields of an attempt that its app sees unchanged; a new field of the record is shown only once it is listed here."""


def mark_unreadable(private: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the private part with `names` added to the list of what can't be read."""
    return {**private, LOCKED: tuple(dict.fromkeys((*private.get(LOCKED, ()), *names)))}


def dumps(value: Any) -> bytes:
    """Return JSON bytes; times are ISO-8601 with Z. A lone surrogate in a provider's text stays an escape."""
    try:
        return to_json(value)
    except PydanticSerializationError:
        return json.dumps(value, default=_json_default).encode()


def _json_default(value: object) -> str:
    return iso_utc(value) if isinstance(value, datetime) else str(value)


def job_view(
    job: Job,
    private: dict[str, Any],
    answer: dict[str, Any] | None,
    webhook_state: str | None,
    base: str,
    notices: Sequence[dict[str, Any]] = (),
    place: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the job as its app sees it.

    `base` is the start of its URLs, `webhook_state` the state of its newest message. `notices` came from the provider's
    safety team by webhook, perhaps long after the job's end, so they are stored beside the record.
    `place`: where the job stands in the queue, if that was looked up.
    """
    answer = answer or {}
    done = answer if job.status is Status.COMPLETED else {}
    hook = private.get("webhook")
    return {
        "id": job.id,
        "object": "job",
        "status": job.status.value,
        "reason": job.reason,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "next_attempt_at": job.next_attempt_at,
        "queue": place if job.status is Status.QUEUED else None,
        "not_before": job.not_before,
        "priority": job.priority,
        "requested_model": job.requested_model,
        "served_model": job.served_model,
        "disclosure": job.disclosure and job.disclosure.__dict__,
        "output_text": done.get("output_text"),
        "output": done.get("output") or [],
        **_draft(job, answer),
        "refusal": done.get("refusal"),
        "usage": _usage(_job_usage(job)),
        "cost": _cost(job),
        "cost_reason": "price_unknown" if job.total_cost is None else None,
        "safety": {
            "state": job.safety_state.value,
            "checks": [_check(check) for check in job.checks],
            "block": job.block and job.block.model_dump(),
            "account_flagged": job.account_flagged or bool(notices),
            "notices": list(notices),
            "message": check_message(job),
            "next_action": next_action(job),
        },
        "offer": job.offer and job.offer.__dict__,
        "hold": job.hold and {name: getattr(job.hold, name) for name in _HOLD_FIELDS},
        "attempts": [_attempt(a, answer.get("provider_messages") or {}) for a in job.attempts],
        "error": job.error and job.error.model_dump(),
        "webhook": {"url": hook["url"], "state": webhook_state or "pending"} if hook else None,
        "metadata": private.get("metadata") or {},
        "content": LOCKED if LOCKED in private else job.content_removed or "kept",
        "unreadable": list(private.get(LOCKED, ())),
        "content_removed_at": job.content_removed_at,
        "urls": job_urls(job, base),
    }


def job_urls(job: Job, base: str) -> dict[str, str]:
    """Return the URLs of the job and its resources; `base` is what comes before `/v1`."""
    return {name: f"{base}/v1/jobs/{job.id}{tail}" for name, tail in _URLS.items()}


def _draft(job: Job, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the draft, the model that wrote it, and whether it still stands.

    A draft that the original's answer has superseded is kept and marked; the text of a withdrawn one is gone.
    """
    if job.draft_attempt is None:
        return {"draft": None, "draft_model": None, "draft_state": None}
    state = "withdrawn" if job.draft_withdrawn else "superseded" if job.settled else "standing"
    text = None if job.draft_withdrawn else answer.get("draft")
    author = job.attempt(job.draft_attempt)
    model = None if text is None else author.served_model or author.model
    return {"draft": text, "draft_model": model, "draft_state": state}


def _job_usage(job: Job) -> Usage | None:
    """Return the winner's usage, or the sum over all attempts that have one."""
    if job.winner is not None and job.attempt(job.winner).usage is not None:
        return job.attempt(job.winner).usage
    known = [a.usage for a in job.attempts if a.usage is not None]
    if not known:
        return None
    counts = {name: sum(getattr(u, name) for u in known) for name in Usage.model_fields if name != "estimated"}
    return Usage(**counts, estimated=any(u.estimated for u in known))


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    return None if usage is None else usage.__dict__


def _cost(job: Job) -> dict[str, str] | None:
    total, wasted = job.total_cost, job.wasted_cost
    if total is None or wasted is None:
        return None
    return {"currency": "USD", "total": dollars(total), "wasted": dollars(wasted)}


def _check(check: Check) -> dict[str, Any]:
    lasted = None if check.ended_at is None else (check.ended_at - check.started_at).total_seconds()
    seconds = None if lasted is None else round(max(0.0, lasted), 3)  # older records may hold times out of order
    return {
        "attempt": check.attempt,
        "evidence": check.evidence.value,
        "started_at": check.started_at,
        "ended_at": check.ended_at,
        "seconds": seconds,
        "use_cases": check.use_cases,
        "reasons": check.reasons,
        "retry_model": check.retry_model,
        "retry_model_state": check.retry_model_state.value,
        "repeats": check.repeats,
        "ended_by": check.ended_by and check.ended_by.value,
    }


def _attempt(attempt: Attempt, provider_messages: dict[str, str]) -> dict[str, Any]:
    """Return the attempt, money as text; the provider's message is left out if content was withheld."""
    blocked = attempt.outcome is Outcome.BLOCKED
    return {
        **{name: getattr(attempt, name) for name in _ATTEMPT_FIELDS},
        "error": attempt.error and attempt.error.model_dump(),
        "usage": _usage(attempt.usage) or {},
        "cost": None if attempt.cost is None else dollars(attempt.cost),
        "price": attempt.price and attempt.price.model_dump(),
        "provider_message": None if blocked else provider_messages.get(str(attempt.number)),
    }
