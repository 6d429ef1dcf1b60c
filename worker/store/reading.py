"""What an answer to an app needs beyond the record, for many jobs in one trip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from arq.connections import ArqRedis

from worker.safety.notices import Notice
from worker.store import keys
from worker.store.content import opened
from worker.store.pool import asking
from worker.store.vault import ANSWER


async def answers(redis: ArqRedis, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What came back, by job; jobs without an answer are missing."""
    if not job_ids:
        return {}
    async with asking("read the answers"):
        rows = await redis.mget([keys.answer(job_id) for job_id in job_ids])
    return await opened(redis, ANSWER, dict(zip(job_ids, rows, strict=True)))


async def message_states(redis: ArqRedis, job_ids: Sequence[str]) -> dict[str, str]:
    """The state of each job's newest webhook message; jobs without one are missing."""
    if not job_ids:
        return {}
    async with asking("read the webhook states"):
        async with redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.lindex(keys.messages(job_id), -1)
            newest = await pipe.execute()
        named = [(job_id, raw.decode()) for job_id, raw in zip(job_ids, newest, strict=True) if raw]
        rows = await redis.mget([keys.message(message) for _, message in named]) if named else []
    return {job_id: str(json.loads(row)["state"]) for (job_id, _), row in zip(named, rows, strict=True) if row}


async def notices(redis: ArqRedis, names: Sequence[str]) -> dict[str, Notice]:
    """The provider's notices by their names; those whose time is over are missing."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    async with asking("read the notices"):
        rows = await redis.mget([keys.notice(name) for name in wanted])
    return {name: Notice.model_validate_json(row) for name, row in zip(wanted, rows, strict=True) if row}
