"""A person's look at content of a job is a record of the audit trail; in the console it also needs its own scope."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from starlette.requests import Request

from api.jobs.acting import actor_of
from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from worker.jobs.errors import Refused
from worker.jobs.record import Job
from worker.store.apps import ApiKey
from worker.store.audit.content_reads import ContentKind
from worker.store.jobs.stored_job import StoredJob

SCOPE: Final = "content"


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


async def record_packet(request: Request, key: ApiKey, job: Job) -> None:
    """Record that a support packet of the job is about to be given, whosever key it is: packets are for people."""
    recording = context_of(request).content_reads.record(job.app, job.id, "packet", actor_of(key))
    await with_deadline(request, recording)
