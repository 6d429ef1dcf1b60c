"""Deleting what an app sent and got: the record and its trail stay, they hold no content."""

from __future__ import annotations

from typing import Any, Final

from arq.connections import ArqRedis

from worker.store import keys
from worker.store.jobs import Stored
from worker.store.pool import asking, vault_of
from worker.store.vault import PRIVATE

MARK: Final = "deleted"
"""The member of a job's private part that says that its content was deleted."""


async def erase(redis: ArqRedis, stored: Stored) -> None:
    """Input, answer, text, metadata and the end user's name are gone; the address of its webhook stays."""
    job_id = stored.job.id
    kept: dict[str, Any] = {"metadata": {}, "end_user": None, "webhook": stored.private.get("webhook"), MARK: True}
    fresh = vault_of(redis).new(stored.job.app, job_id)  # the key of what was there is gone with it
    texts = [keys.text(job_id, attempt.number) for attempt in stored.job.attempts]
    async with asking("delete the content"), redis.pipeline(transaction=True) as pipe:
        pipe.hset(keys.job(job_id), "priv", fresh.seal_whole(PRIVATE, kept))
        pipe.delete(keys.asked(job_id), keys.answer(job_id), *texts)
        await pipe.execute()


def erased(stored: Stored) -> bool:
    """True when its content was deleted."""
    return bool(stored.private.get(MARK))
