"""Change how long what belongs to an app is kept, also of what is there already.

The end of a job reads its app's times in the same script, so they hold for whatever ends from then on; jobs that are
over expire by them, sooner or later than before; what is over by them is removed at once. Legal holds have priority. It
may be repeated, and is applied again then.
"""

from __future__ import annotations

from arq.connections import ArqRedis

from worker.audit.chain import app_chain
from worker.clock import Clock
from worker.jobs.ids import is_job_id
from worker.settings import Settings
from worker.store import keys
from worker.store.admission.app_retention import AppRetention, check, effective, kept_times
from worker.store.apps import Apps
from worker.store.audit.acts import Actor
from worker.store.errors import store_errors
from worker.store.jobs.repository import retention_of
from worker.store.lifecycle.job_expiry import JobExpiry, ids_of_index


class RetentionChange:
    """Reads and changes the retention times of apps."""

    def __init__(self, redis: ArqRedis, clock: Clock, settings: Settings) -> None:
        self._redis, self._clock, self._settings = redis, clock, settings
        self._expiry = JobExpiry(redis, clock, retention_of(settings))

    async def own(self, app: str) -> AppRetention:
        """Return the app's own times. Raises Refused when there is no such app."""
        return await Apps(self._redis, self._clock).retention(app)

    async def set(self, app: str, own: AppRetention, actor: Actor) -> None:
        """Set the app's own times, for each job that ends from now on.

        Raises Refused for an unknown app, or a time out of bounds.
        """
        check(own, self._settings)
        await Apps(self._redis, self._clock, actor).set_retention(app, own, actor.by)
        times = kept_times(own, self._settings)
        async with store_errors("keep the times", keys.RETENTION_TIMES):
            if times:
                await self._redis.hset(keys.RETENTION_TIMES, app, times)
            else:
                await self._redis.hdel(keys.RETENTION_TIMES, app)

    async def apply(self, app: str, own: AppRetention) -> None:
        """Apply the times to what the app has already: its jobs, and its conversations, which only go sooner."""
        async for job_ids in ids_of_index(self._redis, keys.index(app)):
            await self._expiry.set(job_ids)
        await self._shorten_conversations(app, effective(own, self._settings)["result"])

    async def _shorten_conversations(self, app: str, seconds: int) -> None:
        async with store_errors("read the holds", keys.LEGAL_HOLDS):
            if await self._redis.sismember(keys.LEGAL_HOLDS, app_chain(app)):
                return
        async with store_errors("list the conversations", keys.content_sizes(app)):
            names = [name.decode(errors="replace") async for name, _ in self._redis.hscan_iter(keys.content_sizes(app))]
            for name in names:
                if not is_job_id(name):
                    await self._redis.expire(keys.conversation(app, name), seconds, lt=True)
