"""The audit records: one for each event, chained within the job, written in the event's own commit.

hash = SHA-256(previous hash + canonical JSON of the record); the first record's previous hash is 64 zeros.
Content-free because events are.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from worker.jobs.events import Event
from worker.jobs.record import Job
from worker.store.codec import canonical

GENESIS: Final = "0" * 64


def record_of(job: Job, event: Event) -> dict[str, Any]:
    """What the auditor reads: the event, and whose job it was under which key and model."""
    return {**event.dump(), "app": job.app, "key_id": job.key_id, "requested_model": job.requested_model}


def link(previous: str, record: dict[str, Any]) -> tuple[str, bytes]:
    """(The record's hash, its canonical bytes)."""
    body = canonical(record)
    return hashlib.sha256(previous.encode() + body).hexdigest(), body
