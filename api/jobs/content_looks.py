"""A person's look at content of a job in the console: it needs its own scope, and is a record of the audit trail."""

from __future__ import annotations

import hashlib
from typing import Final

from api.runtime.context import AppContext
from worker.jobs.errors import Refused
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
    await context.content_reads.record(stored.job.app, stored.job.id, kind, by=key.id, session=session_name(token))
