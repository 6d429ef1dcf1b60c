"""Read what a response to an app needs beyond the records, for many jobs in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.jobs.errors import StoreUnavailable, VigilError
from worker.jobs.view_schema import MessageState
from worker.store import keys
from worker.store.errors import store_errors
from worker.store.jobs.outputs import read_outputs
from worker.store.values import pipeline_replies, readable
from worker.store.webhooks.outbox import load_message

_UNSENT: Final[MessageState] = "exhausted"
"""The state of a message that can't be read: it is not sent any more."""


async def outputs(redis: ArqRedis, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the outputs by job; jobs without one are left out.

    Raises KeyMissing, ContentDamaged, ArchiveUnavailable.
    """
    found = dict[str, dict[str, Any]]()
    for job_id, output in (await read_outputs(redis, job_ids)).items():
        if isinstance(output, VigilError):
            raise output
        found[job_id] = output
    return found


async def outputs_or_none(
    redis: ArqRedis, job_ids: Sequence[str], *, strict: bool = False
) -> dict[str, dict[str, Any] | None]:
    """Return the outputs by job; None for one that can't be read, so that it does not hide the others.

    `strict`: raise KeyMissing or ArchiveUnavailable all the same, for what may be read later.
    """
    found = dict[str, dict[str, Any] | None]()
    for job_id, output in (await read_outputs(redis, job_ids)).items():
        if strict and isinstance(output, StoreUnavailable):
            raise output
        found[job_id] = None if isinstance(output, VigilError) else output
    return found


async def message_states(redis: ArqRedis, job_ids: Sequence[str]) -> dict[str, MessageState]:
    """Return the state of each job's newest webhook message; jobs without one are left out."""
    if not job_ids:
        return {}
    async with store_errors("read the webhook states"):
        async with redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.lindex(keys.messages(job_id), -1)
            newest = await pipeline_replies(pipe, map(keys.messages, job_ids))
        named = [(job_id, raw.decode(errors="replace")) for job_id, raw in zip(job_ids, newest, strict=True) if raw]
        rows = await redis.mget([keys.message(message) for _, message in named]) if named else []
    jobs = {keys.message(message): job_id for job_id, message in named}
    found = readable(zip(jobs, rows, strict=True), load_message)
    unread = {jobs[name]: _UNSENT for name, row in zip(jobs, rows, strict=True) if row}
    return unread | {jobs[name]: message.state for name, message in found}


async def inputs_are_kept(redis: ArqRedis, job_ids: Sequence[str]) -> bool:
    """Return whether each of these jobs has its input, but for those of which nothing is kept any more."""
    if not job_ids:
        return True
    async with store_errors("look for inputs"):
        kept = await redis.exists(*map(keys.job, job_ids))
        return bool(await redis.exists(*map(keys.job_input, job_ids)) >= kept)
