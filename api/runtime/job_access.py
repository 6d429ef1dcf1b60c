"""What requests read and change of jobs beside their records: lists, outputs, webhook states, removal of content.

Holds the Redis client, so that routes need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.runtime.conversations import Conversations
from worker.clock import Clock
from worker.jobs.view_schema import MessageState
from worker.safety.notices import SafetyNotice
from worker.store.admission import app_quota, rate_limit
from worker.store.admission.app_quota import AppQuota
from worker.store.admission.rate_limit import RateMeter
from worker.store.apps import Apps
from worker.store.connection.pool import Redis
from worker.store.jobs import batch_reads, item_references, listing, provider_ids
from worker.store.jobs.job_groups import JobGroup, read_group
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import StoredJob
from worker.store.lifecycle import erasure
from worker.store.partitions.pins import has_app
from worker.store.provider import safety_notices


class JobAccess:
    """Reads about many jobs at once, and removal."""

    def __init__(self, redis: Redis, jobs: Jobs, clock: Clock, conversations: Conversations) -> None:
        self._redis, self._jobs, self._clock, self._conversations = redis, jobs, clock, conversations
        self._apps = Apps(redis, clock)

    async def page(
        self, app: str, filters: ListFilters, limit: int, cursor: str | None
    ) -> tuple[Sequence[StoredJob], str | None]:
        """Return (a page of the app's jobs, newest first, and the cursor of the next page or None)."""
        return await listing.list_jobs(self._redis, app, filters, limit, cursor, self._jobs.load)

    async def has_app(self, app: str) -> bool:
        """Return whether this store has the app."""
        return await has_app(self._redis, app)

    async def count(self, app: str, filters: ListFilters) -> tuple[int, bool]:
        """Return (how many of the app's jobs fit, by their indexes; whether these are all, after a bounded search)."""
        return await listing.count_jobs(self._redis, app, filters)

    async def group(self, app: str, name: str) -> JobGroup | None:
        """Return how the app's group of jobs stands, or None if there is none."""
        return await read_group(self._redis, app, name)

    async def outputs(self, job_ids: Sequence[str], *, strict: bool = False) -> dict[str, dict[str, Any] | None]:
        """Return the outputs by job id; None for one that can't be read, and no entry for a job without an output.

        `strict`: raise KeyMissing for an output whose encryption key is missing, and ArchiveUnavailable.
        """
        return await batch_reads.outputs_or_none(self._redis, job_ids, strict=strict)

    async def webhook_states(self, job_ids: Sequence[str]) -> dict[str, MessageState]:
        """Return the state of each job's newest webhook message; no entry for a job without one."""
        return await batch_reads.message_states(self._redis, job_ids)

    async def notices(self, names: Sequence[str]) -> dict[str, SafetyNotice]:
        """Return the provider's notices by name; no entry for those that are no longer kept."""
        return await safety_notices.notices_named(self._redis, names)

    async def mark_read(self, job_ids: Sequence[str]) -> None:
        """Record that the app has the answers of these jobs: what is not to be stored is erased a minute later."""
        await erasure.schedule_erasure(self._redis, self._clock, job_ids)

    async def refuse_copy(self, app: str, size: int, meter: RateMeter, quota: AppQuota) -> None:
        """Raise RateExceeded or QueueFull if a new job of so many bytes would be refused now; `submit` decides again.

        For content that is copied before its job is created.
        """
        await rate_limit.refuse_if_spent(self._redis, app, meter)
        held = (await self._apps.quota_use(app)).bytes if quota.bytes else 0
        if quota.bytes and held + size > quota.bytes:
            raise app_quota.exceeded("bytes_held", held, size, quota)

    async def erase(self, stored: StoredJob, by: str) -> None:
        """Remove the content of a settled job on request, and its items from its conversation.

        Raises Refused if it is not settled or under legal hold.
        """
        conversation_id = (stored.private.get("state") or {}).get("conversation")
        if conversation_id is not None and stored.job.settled:  # first: a request that is repeated finds no job
            await erasure.refuse_if_held(self._redis, stored.job)
            await self._conversations.remove_job(stored.job.app, conversation_id, stored.job.id)
        await erasure.erase(self._redis, self._jobs, stored, "deleted", by)

    async def are_kept(self, job_ids: Sequence[str]) -> bool:
        """Return whether the input of each of these jobs is kept, unless the whole job is no longer."""
        return await batch_reads.inputs_are_kept(self._redis, job_ids)

    async def jobs_of_items(self, app: str, names: Sequence[str]) -> dict[str, str]:
        """Return by item id the job of the app whose output it is; no entry for unknown ones."""
        return await item_references.jobs_of_items(self._redis, app, names)

    async def of_response(self, response_id: str | None) -> str | None:
        """Return the id of the job that received this response of the provider, or None if it is unknown."""
        return await provider_ids.job_of(self._redis, None, response_id)
