"""Store the provider's webhooks once each, and their notices until they are matched with the jobs they concern.

A job is settled by its own attempts alone, so a notice is stored beside the record and never in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.safety.notices import RESPONSE_END_TYPES, TYPES, SafetyNotice
from worker.store import channels, keys
from worker.store.connection.lua_scripts import script
from worker.store.errors import store_errors
from worker.store.values import count_of, readable, reporting_unreadable

_WEBHOOK_ID_TTL_S: Final = 7 * 86_400  # the provider delivers again for 72 hours
_LEASE_MS: Final = 60_000  # for one processing of a notice, with a request to the provider
_MAX_PER_CLAIM: Final = 20
_MAX_PER_JOB: Final = 20
_OTHER_TYPE: Final = "other"
RESPONSE_ENDED: Final = "ended"
"""The control message to the holder of a job, followed by the response's id, when the provider says it has ended."""


class SafetyNotices:
    """The notices in Redis."""

    def __init__(self, redis: ArqRedis, keep: int) -> None:
        """`keep`: seconds that a notice is kept."""

        def load(name: str) -> Any:
            return script(redis, name)

        self._redis, self._keep = redis, keep
        self._store_webhook, self._claim_due, self._update_notice = (
            load("provider/store_webhook"),
            load("provider/claim_due"),
            load("provider/update_notice"),
        )

    async def store_webhook(self, webhook_id: str, kind: str, notice: SafetyNotice | None) -> bool:
        """Store a webhook, with the notice in it if any; return True when it is new. Durable when it returns."""
        mark = hashlib.sha256(webhook_id.encode()).hexdigest()
        named = keys.notice(notice.id if notice else "")
        places = [keys.received_webhook(mark), named, keys.NOTICES_DUE, keys.NOTICES, keys.RECEIVED_WEBHOOKS]
        counted = kind if kind in TYPES | RESPONSE_END_TYPES else _OTHER_TYPE
        body = notice.model_dump_json() if notice else ""
        async with store_errors("keep the webhook"):
            args = [counted, _WEBHOOK_ID_TTL_S, body, notice.id if notice else "", self._keep]
            return bool(await self._store_webhook(keys=places, args=args))

    async def claim_due(self) -> list[SafetyNotice]:
        """Lease due notices to this caller for a minute."""
        async with store_errors("claim notices"):
            rows = await self._claim_due(keys=[keys.NOTICES_DUE], args=[keys.NOTICE, _MAX_PER_CLAIM, _LEASE_MS])
        stored = ((keys.notice(row[0].decode(errors="replace")), row[1]) for row in rows)
        return [notice for _, notice in readable(stored, SafetyNotice.model_validate_json)]

    async def update(self, notice: SafetyNotice) -> int:
        """Store the notice's new state and its name on its jobs; return how many of these exist."""
        wait = notice.wait
        places = [keys.notice(notice.id), keys.NOTICES_DUE, *(keys.job(job_id) for job_id in notice.jobs)]
        args = [notice.model_dump_json(), notice.id, "" if wait is None else int(wait * 1000), _MAX_PER_JOB]
        async with store_errors("keep the notice"):
            return int(await self._update_notice(keys=places, args=args))

    async def since(self, at_ms: int, limit: int = 1000) -> list[SafetyNotice]:
        """Return the notices that came at this time or later, newest first."""
        names = list[bytes]()
        with reporting_unreadable():
            async with store_errors("list the notices", keys.NOTICES):
                names = await self._redis.zrevrangebyscore(keys.NOTICES, "+inf", at_ms, start=0, num=limit)
        return list((await notices_named(self._redis, [name.decode(errors="replace") for name in names])).values())

    async def webhook_counts(self) -> dict[str, int]:
        """Return how many webhooks came, by type; types without a use are counted together."""
        async with store_errors("count the webhooks"):
            rows = await self._redis.hgetall(keys.RECEIVED_WEBHOOKS)
        counts = ((kind.decode(errors="replace"), count_of(count)) for kind, count in rows.items())
        return {kind: count for kind, count in counts if count is not None}

    async def notify_response_ended(self, job_id: str, response_id: str) -> None:
        """Notify the job's holder that this response may have ended, and wake workers in case no worker holds it."""
        async with store_errors("notify the holder"), self._redis.pipeline(transaction=False) as pipe:
            pipe.publish(channels.CONTROL, f"{job_id} {RESPONSE_ENDED} {response_id}")
            pipe.publish(channels.WAKE, "1")
            await pipe.execute()


async def notices_named(redis: ArqRedis, names: Sequence[str]) -> dict[str, SafetyNotice]:
    """Return notices by their names; leave out those that have expired."""
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    async with store_errors("read the notices"):
        rows = await redis.mget([keys.notice(name) for name in wanted])
    places = {keys.notice(name): name for name in wanted}
    return {
        places[key]: notice
        for key, notice in readable(zip(places, rows, strict=True), SafetyNotice.model_validate_json)
    }
