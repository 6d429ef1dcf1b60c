"""Renders a job as its app sees it, from record, private part and answer (contract section 3, "The job").

Pure. Makes the API's answers and the `full` bodies of webhooks. Output is shown for completed jobs only; times and
money stay exact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from worker.jobs.account_name import CIRCUIT, DEFAULT_ACCOUNT
from worker.jobs.billed import billed_view
from worker.jobs.catalogue import dollars
from worker.jobs.input_changes import input_changes
from worker.jobs.offer_terms import offer_view
from worker.jobs.record import Attempt, Block, Check, Hold, Job, Usage
from worker.jobs.running_check import check_message, next_action
from worker.jobs.states import Outcome, Status
from worker.jobs.timestamps import iso_utc
from worker.jobs.view_schema import (
    AttemptUsageView,
    AttemptView,
    CheckView,
    CostView,
    DraftState,
    JobBlockView,
    JobHoldView,
    JobUrlsView,
    JobUsageView,
    JobView,
    MessageCut,
    MessageState,
    NoticeView,
    QueuePlaceView,
    WaitingForView,
)

E = TypeVar("E", bound=StrEnum)

LOCKED: Final = "locked"
"""The member of a private part that lists what can't be read, because its key is missing or it was changed."""
PRIVATE: Final = ("metadata", "webhook")
"""Members of the view that come from the private part."""
INPUT: Final = "input"
OUTPUT: Final = "output"
"""The name for the whole answer in the list of unreadable parts."""


def mark_unreadable(private: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the private part with `names` added to the list of what can't be read."""
    return {**private, LOCKED: tuple(dict.fromkeys((*private.get(LOCKED, ()), *names)))}


def dumps(value: Any) -> bytes:
    """Return JSON bytes; times are ISO-8601 with Z. A lone surrogate in a provider's text stays an escape."""
    try:
        return to_json(value)
    except PydanticSerializationError:
        return json.dumps(value, default=_json_default).encode()


def _json_default(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.__dict__
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return iso_utc(value) if isinstance(value, datetime) else str(value)


def job_view(
    job: Job,
    private: dict[str, Any],
    answer: dict[str, Any] | None,
    webhook_state: MessageState | None,
    base: str,
    notices: Sequence[NoticeView] = (),
    place: QueuePlaceView | None = None,
    waiting_for: WaitingForView | None = None,
) -> JobView:
    """Return the job as its app sees it.

    `base` is the start of its URLs, `webhook_state` the state of its newest message. `notices` came from the provider's
    safety team by webhook, perhaps long after the job's end, so they are stored beside the record.
    `place`: where the job stands in the queue, if that was looked up; `waiting_for`: the limit that keeps it.
    """
    answer = answer or {}
    done = answer if job.status is Status.COMPLETED else {}
    hook = private.get("webhook")
    draft, draft_model, draft_state = _draft(job, answer)
    cost = _cost(job)
    return {
        "id": job.id,
        "object": "job",
        "status": _text(job.status),
        "reason": job.reason,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "next_attempt_at": job.next_attempt_at,
        "queue": place if job.status is Status.QUEUED else None,
        "waiting_for": waiting_for if job.status in (Status.QUEUED, Status.SCHEDULED) else None,
        "not_before": job.not_before,
        "priority": job.priority,
        "requested_model": job.requested_model,
        "served_model": job.served_model,
        "disclosure": job.disclosure,
        "output_text": done.get("output_text"),
        "output": done.get("output") or [],
        "draft": draft,
        "draft_model": draft_model,
        "draft_state": draft_state,
        "refusal": done.get("refusal"),
        "input_changes": input_changes(job),
        "unfiltered": job.unfiltered,
        "usage": _job_usage(job),
        "cost": cost,
        "cost_reason": "price_unknown" if cost is None else None,
        "billed": billed_view(job),
        "safety": {
            "state": _text(job.safety_state),
            "checks": [_check(check) for check in job.checks],
            "block": _block(job.block),
            "account_flagged": job.account_flagged or bool(notices),
            "notices": list(notices),
            "message": check_message(job),
            "next_action": next_action(job),
        },
        "offer": offer_view(job),
        "consent": job.consent,
        "hold": _hold(job.hold),
        "attempts": [_attempt(a, answer) for a in job.attempts],
        "error": job.error,
        "webhook": {"url": hook["url"], "state": webhook_state or "pending"} if hook else None,
        "metadata": private.get("metadata") or {},
        "rerun_of": job.rerun_of,
        "group": job.group,
        "content": "locked" if LOCKED in private else job.content_removed or "kept",
        "unreadable": list(private.get(LOCKED, ())),
        "content_removed_at": job.content_removed_at,
        "urls": job_urls(job, base),
    }


def job_urls(job: Job, base: str) -> JobUrlsView:
    """Return the URLs of the job and its resources; `base` is what comes before `/v1`."""
    url = f"{base}/v1/jobs/{job.id}"
    return {
        "self": url,
        "events": f"{url}/events",
        "cancel": f"{url}/cancel",
        "support_packet": f"{url}/support-packet",
    }


def _text(member: E) -> E:
    """Return the text of an enum's member, typed as the member: a member takes three times as long to serialize."""
    return cast("E", member.value)


def _hold(hold: Hold | None) -> JobHoldView | None:
    if hold is None:
        return None
    account = hold.account or (DEFAULT_ACCOUNT if hold.scope.startswith(CIRCUIT) else None)
    return {"scope": hold.scope, "reason": hold.reason, "since": hold.since, "by": hold.by, "account": account}


def _draft(job: Job, answer: dict[str, Any]) -> tuple[str | None, str | None, DraftState | None]:
    """Return the draft, the model that wrote it, and whether it still stands.

    A draft that the original's answer has superseded is kept and marked; the text of a withdrawn one is gone.
    """
    if job.draft_attempt is None:
        return None, None, None
    if job.draft_withdrawn:
        return None, None, "withdrawn"
    text, author = answer.get("draft"), job.attempt(job.draft_attempt)
    model = None if text is None else author.served_model or author.model
    return text, model, "superseded" if job.settled else "standing"


def _job_usage(job: Job) -> JobUsageView | None:
    """Return the winner's usage, or the sum over all attempts that have one."""
    known = [a.usage for a in job.attempts if a.usage is not None]
    if job.winner is not None and (answered := job.attempt(job.winner).usage) is not None:
        known = [answered]
    if not known:
        return None
    counts = {name: sum(getattr(u, name) for u in known) for name in Usage.model_fields if name != "estimated"}
    return cast("JobUsageView", {**counts, "estimated": any(u.estimated for u in known)})


def _cost(job: Job) -> CostView | None:
    total, wasted = job.total_cost, job.wasted_cost
    if total is None or wasted is None:
        return None
    return {"currency": "USD", "total": dollars(total), "wasted": dollars(wasted)}


def _check(check: Check) -> CheckView:
    lasted = None if check.ended_at is None else (check.ended_at - check.started_at).total_seconds()
    seconds = None if lasted is None else round(max(0.0, lasted), 3)  # older records may hold times out of order
    return {
        "attempt": check.attempt,
        "evidence": _text(check.evidence),
        "started_at": check.started_at,
        "ended_at": check.ended_at,
        "seconds": seconds,
        "use_cases": check.use_cases,
        "reasons": check.reasons,
        "retry_model": check.retry_model,
        "retry_model_state": _text(check.retry_model_state),
        "repeats": check.repeats,
        "ended_by": check.ended_by and _text(check.ended_by),
    }


def shown_message(attempt: Attempt, answer: dict[str, Any]) -> tuple[str | None, list[MessageCut]]:
    """Return what may be shown of the provider's message on an attempt, and why something of it is cut.

    An earlier release stored messages without comparing them with the request: that on a block is not shown.
    """
    number = str(attempt.number)
    shown = (answer.get("shown_messages") or {}).get(number)
    if shown is not None:
        return shown["text"], shown["cut"]
    words = (answer.get("provider_messages") or {}).get(number)
    if words is None or attempt.outcome is not Outcome.BLOCKED:
        return words, []
    return None, ["not_compared"]


def _block(block: Block | None) -> JobBlockView | None:
    """Return the block with all its fields: its record leaves out those that have their default."""
    return None if block is None else cast("JobBlockView", block.__dict__)


def _attempt(attempt: Attempt, answer: dict[str, Any]) -> AttemptView:
    """Return the attempt, money as text, the provider's message as far as it may be shown."""
    message, why_cut = shown_message(attempt, answer)
    return {
        "number": attempt.number,
        "model": attempt.model,
        "served_model": attempt.served_model,
        "purpose": _text(attempt.purpose),
        "because": attempt.because,
        "outcome": attempt.outcome and _text(attempt.outcome),
        "mode": attempt.mode,
        "client_request_id": attempt.client_request_id,
        "request_id": attempt.request_id,
        "response_id": attempt.response_id,
        "account": attempt.account,
        "organization": attempt.organization,
        "project": attempt.project,
        "started_at": attempt.started_at,
        "first_event_at": attempt.first_event_at,
        "first_output_at": attempt.first_output_at,
        "longest_silence_seconds": attempt.longest_silence_seconds,
        "finished_at": attempt.finished_at,
        "http_status": attempt.http_status,
        "processing_ms": attempt.processing_ms,
        "resumed": attempt.resumed,
        "sequence": attempt.sequence,
        "served_raw": attempt.served_raw,
        "flags": attempt.flags,
        "service_tier": attempt.service_tier,
        "rate_limits": attempt.rate_limits,
        "error": attempt.error,
        "usage": cast("AttemptUsageView", attempt.usage.__dict__) if attempt.usage is not None else {},
        "cost": None if attempt.cost is None else dollars(attempt.cost),
        "price": attempt.price,
        "provider_message": message,
        "provider_message_cut": why_cut,
        "input_transformations": attempt.input_transformations,
    }
