"""The provider's webhooks as Redis keeps them: each once, its notice until it is joined to the jobs that it concerns.

A job is settled by its own attempts alone, so a notice stands beside the record and never in it. Must not know: what a
type means, signatures, the provider.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from arq.connections import ArqRedis

from worker.safety.notices import RESPONSE_ENDED, TYPES, SafetyNotice
from worker.store import keys
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import store_errors
from worker.store.values import count_of, readable, reporting_unreadable

_MARK_SECONDS: Final = 7 * 86_400  # the provider delivers again for 72 hours
_LEASE_MS: Final = 60_000  # for one look at a notice, with a question to the provider in it
_AT_ONCE: Final = 20
_ON_A_JOB: Final = 20
_OTHER: Final = "other"
ENDED: Final = "ended"
"""What the holder of a job is told, with its id, when the provider says that a response is over."""


class SafetyNotices:
    """All that is done with notices in Redis."""

    def __init__(self, redis: ArqRedis, keep: int) -> None:
        """`keep`: seconds that a notice is kept."""

        def load(name: str) -> Any:
            return script(redis, name)

        self._redis, self._keep = redis, keep
        self._hear, self._due, self._noted = (
            load("provider/store_webhook"),
            load("provider/claim_due"),
            load("provider/update_notice"),
        )

    async def hear(self, webhook_id: str, kind: str, notice: SafetyNotice | None) -> bool:
        """True when this webhook is new; durable when it returns. `notice`: what is to be kept of it, if anything."""
        mark = hashlib.sha256(webhook_id.encode()).hexdigest()
        named = keys.notice(notice.id if notice else "")
        places = [keys.heard(mark), named, keys.NOTICES_DUE, keys.NOTICES, keys.HEARD]
        counted = kind if kind in TYPES | RESPONSE_ENDED else _OTHER
        kept = notice.model_dump_json() if notice else ""
        async with store_errors("keep the webhook"):
            args = [counted, _MARK_SECONDS, kept, notice.id if notice else "", self._keep]
            return bool(await self._hear(keys=places, args=args))

    async def due(self) -> list[SafetyNotice]:
        """Notices that somebody should look at now: this caller, for a minute."""
        async with store_errors("hand out notices"):
            rows = await self._due(keys=[keys.NOTICES_DUE], args=[keys.NOTICE, _AT_ONCE, _LEASE_MS])
        kept = ((keys.notice(row[0].decode(errors="replace")), row[1]) for row in rows)
        return [notice for _, notice in readable(kept, SafetyNotice.model_validate_json)]

    async def noted(self, notice: SafetyNotice) -> int:
        """What is known of it now is kept, its jobs show it; gives how many of them there are."""
        wait = notice.wait
        places = [keys.notice(notice.id), keys.NOTICES_DUE, *(keys.job(job_id) for job_id in notice.jobs)]
        args = [notice.model_dump_json(), notice.id, "" if wait is None else int(wait * 1000), _ON_A_JOB]
        async with store_errors("keep the notice"):
            return int(await self._noted(keys=places, args=args))

    async def since(self, at_ms: int, limit: int = 1000) -> list[SafetyNotice]:
        """The notices that came at this time or later, newest first."""
        names = list[bytes]()
        with reporting_unreadable():
            async with store_errors("list the notices", keys.NOTICES):
                names = await self._redis.zrevrangebyscore(keys.NOTICES, "+inf", at_ms, start=0, num=limit)
        return list((await notices_named(self._redis, [name.decode(errors="replace") for name in names])).values())

    async def heard(self) -> dict[str, int]:
        """How many webhooks came, by type; those that Vigil has no use for are counted together."""
        async with store_errors("count the webhooks"):
            rows = await self._redis.hgetall(keys.HEARD)
        counts = ((kind.decode(errors="replace"), count_of(count)) for kind, count in rows.items())
        return {kind: count for kind, count in counts if count is not None}

    async def ended(self, job_id: str, response_id: str) -> None:
        """Whoever holds the job is told to look whether this response is over; a job that nobody holds is rung for."""
        async with store_errors("tell the holder"), self._redis.pipeline(transaction=False) as pipe:
            pipe.publish(keys.CONTROL, f"{job_id} {ENDED} {response_id}")
            pipe.publish(keys.WAKE, "1")
            await pipe.execute()


async def notices_named(redis: ArqRedis, names: Sequence[str]) -> dict[str, SafetyNotice]:
    """The provider's notices by their names; those whose time is over are missing."""
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
