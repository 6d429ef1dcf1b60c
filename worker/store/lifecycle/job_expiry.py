"""Set anew when settled jobs expire: after a legal hold, or when the retention of their app changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.record import Job
from worker.store import codec, keys
from worker.store.commands import Command, flatten
from worker.store.connection.lua_scripts import RUN_COMMANDS, script
from worker.store.errors import store_errors
from worker.store.jobs.commit_commands import RetentionTimes, measure_command, retire_command
from worker.store.values import pipeline_replies, readable

_PAGE: Final = 500
_AT_ONCE: Final = 100
"""Jobs of one script: it must not block Redis for long."""


async def ids_of_index(redis: ArqRedis, index: str) -> AsyncIterator[list[str]]:
    """Yield the ids of an index by pages, newest first: what is removed meanwhile is old, so no other is skipped."""
    start = 0
    while True:
        async with store_errors("list the jobs", index):
            rows = await redis.zrevrange(index, start, start + _PAGE - 1)
        if not rows:
            return
        yield [raw.decode(errors="replace") for raw in rows]
        start += _PAGE


class JobExpiry:
    """Sets the expiry of jobs, with the retention times of the deployment; legal holds have priority."""

    def __init__(self, redis: ArqRedis, clock: Clock, keep: RetentionTimes) -> None:
        self._redis, self._clock, self._keep = redis, clock, keep
        self._apply: Any = script(redis, *RUN_COMMANDS, "lifecycle/apply_retention")

    async def set(self, job_ids: Sequence[str], *, least: int = 0) -> None:
        """Let those of these jobs that are settled expire so long after their end as their retention says.

        `least`: seconds that they are kept in any case. What is over is removed at once.
        """
        for start in range(0, len(job_ids), _AT_ONCE):
            await self._set(job_ids[start : start + _AT_ONCE], least)

    async def _set(self, job_ids: Sequence[str], least: int) -> None:
        async with store_errors("read the jobs"), self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hget(keys.job(job_id), "rec")
            rows = await pipeline_replies(pipe, map(keys.job, job_ids))
        found = [job for _, job in readable(zip(map(keys.job, job_ids), rows, strict=True), codec.load_job)]
        await self._run([command for job in found if job.settled for command in self._commands(job, least)])

    def _commands(self, job: Job, least: int) -> list[Command]:
        ended = job.finished_at or job.created_at
        passed = max(0, round((self._clock.now() - ended).total_seconds()))
        return [retire_command(job, self._keep, passed=passed, least=least), measure_command(job)]

    async def _run(self, commands: Sequence[Command]) -> None:
        if commands:
            async with store_errors("set the expiry of jobs"):
                await self._apply(keys=[keys.SETTLED], args=flatten(commands))
