"""A person's look at content of a job is a record of the audit trail; in the console it also needs its own scope."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from starlette.requests import Request

from api.jobs.acting import actor_of
from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from worker.jobs.conversation import Entry
from worker.jobs.errors import Refused
from worker.jobs.record import Job
from worker.jobs.view_schema import JobView
from worker.store.apps import ApiKey
from worker.store.audit.content_reads import ContentKind
from worker.store.jobs.stored_job import StoredJob

SCOPE: Final = "content"
_SENDERS: Final = ("user", "system", "developer", "tool")


def session_name(token: str) -> str:
    """Return the name under which records of the trail know a session: it reveals nothing of the token."""
    return hashlib.sha256(f"name of {token}".encode()).hexdigest()[:16]


async def record_look(context: AppContext, key: ApiKey, token: str, stored: StoredJob, kind: ContentKind) -> None:
    """Record that the session with this token is about to be shown this content of its app's job.

    Call it before the content is shown; if it raises, nothing may be shown. Raises Refused (403) without the scope,
    which a support packet does not need: it has the provider's words, and neither prompt nor output.
    """
    if (kind != "packet" and SCOPE not in key.scopes) or stored.job.app != key.app:
        raise Refused("insufficient_scope", "This needs the scope content, which the key of this session lacks.", 403)
    actor = actor_of(key, "console")
    await context.content_reads.record(stored.job.app, stored.job.id, kind, actor, session_name(token))


async def record_read(request: Request, key: ApiKey, jobs: Iterable[Job], kind: ContentKind) -> None:
    """Record that a person is about to be given this content of jobs over HTTP that another key submitted.

    An app that reads its own answers leaves no record: its key has no person, or submitted the job itself. Call it
    before the content is sent; if it raises, nothing may be sent.
    """
    for job in jobs if key.person else ():
        if job.key_id != key.id:
            reads = context_of(request).content_reads
            await with_deadline(request, reads.record(job.app, job.id, kind, actor_of(key)))


def has_content(shown: JobView) -> bool:
    """Return whether the view has something that a model has put out."""
    return bool(shown["output_text"] or shown["output"] or shown["draft"] or shown["refusal"])


async def record_item_reads(request: Request, key: ApiKey, entries: Iterable[Entry]) -> None:
    """Record that a person is about to be given these items of a conversation, as `record_read` does for their jobs.

    Items that the app has added itself are of no job, and in no job's trail.
    """
    looks = [(entry.job_id, kind_of(entry.kept.item)) for entry in entries if entry.job_id] if key.person else []
    context = context_of(request)
    for job_id, kind in dict.fromkeys(looks):
        stored = await with_deadline(request, context.jobs.load(job_id))
        if stored is None:  # the job is gone, its items are not: who submitted it is not known any more
            recording = context.content_reads.record(key.app, job_id, kind, actor_of(key))
            await with_deadline(request, recording)
        else:
            await record_read(request, key, [stored.job], kind)


def kind_of(item: Mapping[str, Any]) -> ContentKind:
    """Return whether an item of a conversation was sent to the model or put out by it."""
    kind = str(item.get("type") or "message")
    sent = item.get("role", "user") in _SENDERS if kind == "message" else kind.endswith("_output")
    return "prompt" if sent else "output"


async def record_packet(request: Request, key: ApiKey, job: Job) -> None:
    """Record that a support packet of the job is about to be given, whosever key it is: packets are for people."""
    recording = context_of(request).content_reads.record(job.app, job.id, "packet", actor_of(key))
    await with_deadline(request, recording)
