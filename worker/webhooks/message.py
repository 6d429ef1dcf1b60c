"""Renders the body of a webhook message from the record as of its event; it is rendered once and kept. Pure.

`thin` and `openai` bodies have no content at all; a `full` one is the job as the API shows it, without a draft's text:
a draft may be withdrawn, a sent message can't.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, NamedTuple

from typing_extensions import TypedDict

from worker.jobs import ids
from worker.jobs.billed import billed_view
from worker.jobs.record import Block, Disclosure, Job, JobError
from worker.jobs.states import SafetyState, Status
from worker.jobs.view import dumps, job_urls, job_view
from worker.jobs.view_schema import BilledView, JobUrlsView, JobView, documented

_TRUNCATED_REASON: Final = "max_output_tokens"
_OPENAI_TYPES: Final = {
    Status.COMPLETED: "response.completed",
    Status.BLOCKED: "response.failed",
    Status.FAILED: "response.failed",
    Status.EXPIRED: "response.failed",
    Status.CANCELLED: "response.cancelled",
}


class WebhookEvent(NamedTuple):
    """The event that a message reports."""

    type: str
    seq: int
    at: datetime


class ThinSafetyView(TypedDict):
    """How many safety checks a job had, and its block."""

    state: SafetyState
    checks: int
    block: Block | None
    account_flagged: bool


@documented
class ThinJobView(TypedDict):
    """A job without any content."""

    id: str
    seq: int
    """The seq of the event: a receiver of several messages can tell which one is the newest."""
    status: Status
    reason: str | None
    requested_model: str
    served_model: str | None
    disclosure: Disclosure | None
    error: JobError | None
    safety: ThinSafetyView
    unfiltered: bool
    """The provider answered although its safety filter was not available."""
    billed: BilledView | None
    """Of a cancelled job only: whether the provider bills what was running."""
    urls: JobUrlsView
    metadata: dict[str, str]


@documented
class ThinMessageView(TypedDict):
    """A webhook message without any content (`"payload": "thin"`)."""

    type: str
    """The event that it reports, such as `job.completed`."""
    timestamp: datetime
    data: ThinJobView


@documented
class FullMessageView(TypedDict):
    """A webhook message with the job as the API shows it (`"payload": "full"`)."""

    type: str
    """The event that it reports, such as `job.completed`."""
    timestamp: datetime
    data: JobView


def body_of(
    kind: str,
    message_id: str,
    job: Job,
    event: WebhookEvent,
    private: dict[str, Any],
    answer: dict[str, Any] | None,
    base: str = "",
) -> str | None:
    """Return the body to sign and send, or None if this kind of payload does not report the event.

    `job` is the record as of `event`. `answer` is used for `full` only. `base` is the start of the job's URLs.
    """
    if kind == "openai":
        return _openai(message_id, job, event)
    body: ThinMessageView | FullMessageView
    if kind == "full":
        body = {"type": event.type, "timestamp": event.at, "data": _full(job, private, answer, base)}
    else:
        body = {"type": event.type, "timestamp": event.at, "data": _thin(job, event, private, base)}
    return dumps(body).decode()


def base_of(public_url: str | None, root_path: str, private: dict[str, Any]) -> str:
    """Return the start of the URLs in a job's messages, which leave from a worker.

    It is VIGIL_PUBLIC_URL; or the address at which the job was submitted, which its private part keeps; or only the
    path before the API's own.
    """
    submitted_at = private.get("base")
    return public_url or (submitted_at if isinstance(submitted_at, str) else "") or root_path


def shows_answer(body: str) -> bool:
    """Return whether the body of a message shows the answer of a completed job."""
    try:
        data = json.loads(body)["data"]
        return data["status"] == Status.COMPLETED and "output" in data
    except (ValueError, LookupError, TypeError):
        return False


def _thin(job: Job, event: WebhookEvent, private: dict[str, Any], base: str) -> ThinJobView:
    return {
        "id": job.id,
        "seq": event.seq,
        "status": job.status,
        "reason": job.reason,
        "requested_model": job.requested_model,
        "served_model": job.served_model,
        "disclosure": job.disclosure,
        "error": job.error,
        "safety": {
            "state": job.safety_state,
            "checks": len(job.checks),
            "block": job.block,
            "account_flagged": job.account_flagged,
        },
        "unfiltered": job.unfiltered,
        "billed": billed_view(job),
        "urls": job_urls(job, base),
        "metadata": private.get("metadata") or {},
    }


def _full(job: Job, private: dict[str, Any], answer: dict[str, Any] | None, base: str) -> JobView:
    without_draft = {name: value for name, value in (answer or {}).items() if name != "draft"}
    return job_view(job, private, without_draft, None, base)


def _openai(message_id: str, job: Job, event: WebhookEvent) -> str | None:
    """Return the event in the form that the provider's SDK unwraps, or None: it has types for ends only."""
    kind = _OPENAI_TYPES.get(job.status)
    if kind is None:
        return None
    if job.status is Status.COMPLETED and job.reason == _TRUNCATED_REASON:
        kind = "response.incomplete"
    event_body = {
        "object": "event",
        "id": "evt_" + message_id.partition("_")[2],
        "type": kind,
        "created_at": int(event.at.timestamp()),
        "data": {"id": ids.response_id_of(job.id)},
    }
    return dumps(event_body).decode()
