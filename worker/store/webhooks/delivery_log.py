"""List an app's webhook messages by their last try, all or those whose last try failed, and send the failed ones again.

Each try writes the index (record_try.lua), so a page costs what it shows, however many jobs the app has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import RecordUnreadable, Refused
from worker.store import keys
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.errors import store_errors
from worker.store.values import report_unreadable
from worker.store.webhooks.outbox import Outbox, OutboxMessage

MAX_REDELIVERED: Final = 500
"""The messages that one call sends again."""
_INDEXES: Final = {False: keys.tried_messages, True: keys.undelivered_messages}


@dataclass(frozen=True, slots=True)
class TriedMessage:
    """A message, when it was last tried (ms), and the receipts of its tries, oldest first."""

    message: OutboxMessage
    tried_ms: int
    receipts: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Redelivery:
    """The result of sending many again: how many are sent, how many can't be, how many are left for another call."""

    sent: int
    skipped: int
    left: int


class DeliveryLog:
    """The index of tried messages in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock, outbox: Outbox) -> None:
        self._redis, self._clock, self._outbox = redis, clock, outbox

    async def page(
        self, app: str, limit: int, *, failed: bool = False, before: tuple[int, str] | None = None
    ) -> tuple[list[TriedMessage], tuple[int, str] | None]:
        """Return (up to `limit` messages, newest try first, and where the next page begins or None).

        `failed`: only those whose last try failed. `before`: (time in ms, id) of the last message of the page before.
        """
        index = await self._index(app, failed=failed)
        high = "+inf" if before is None else before[0]
        async with store_errors("list the messages", index):
            rows = await self._redis.zrevrangebyscore(index, high, "-inf", start=0, num=limit + 1, withscores=True)
            if before is not None:  # (of one millisecond there are few: a worker records one try at a time)
                rows += await self._redis.zrevrangebyscore(
                    index, f"({before[0]}", "-inf", start=0, num=limit + 1, withscores=True
                )
        places = dict.fromkeys((int(score), name.decode(errors="replace")) for name, score in rows)
        wanted = sorted((one for one in places if before is None or one < before), reverse=True)
        page, more = wanted[:limit], len(wanted) > limit
        found = await self._outbox.named([name for _, name in page])
        gone = [name for _, name in page if name not in found]
        if gone:
            async with store_errors("list the messages", index):
                await self._redis.zrem(index, *gone)  # their retention time is over
        shown = [TriedMessage(found[name][0], ms, found[name][1]) for ms, name in page if name in found]
        return [one for one in shown if one.message.app == app], page[-1] if more and page else None

    async def count_failed(self, app: str, since_ms: int = 0) -> int:
        """Return how many of the app's listed messages failed in their last try, made at this time or later."""
        index = await self._index(app, failed=True)
        async with store_errors("count the messages", index):
            return int(await self._redis.zcount(index, since_ms, "+inf"))

    async def redeliver_failed(self, app: str, since_ms: int, endpoint: str | None = None) -> Redelivery:
        """Make due those whose last try, at this time or later, failed: the oldest first, a bounded number.

        `endpoint`: only those of this standing endpoint. A message that is being sent or has changed is skipped.
        """
        index, sent, skipped = await self._index(app, failed=True), 0, 0
        async with store_errors("list the messages", index):
            names = await self._redis.zrangebyscore(index, since_ms, "+inf", start=0, num=MAX_REDELIVERED)
            total = int(await self._redis.zcount(index, since_ms, "+inf"))
        found = await self._outbox.named([name.decode(errors="replace") for name in names], receipts=False)
        for message, _ in found.values():
            if message.app != app or endpoint not in (None, message.endpoint, *message.shared_with):
                skipped += 1
                continue
            try:
                await self._outbox.redeliver(message.job_id, message.id)
                sent += 1
            except (Refused, RecordUnreadable) as error:
                skipped += 1
                if isinstance(error, RecordUnreadable):
                    report_unreadable(error)
        return Redelivery(sent, skipped + len(names) - len(found), max(0, total - len(names)))

    async def _index(self, app: str, *, failed: bool) -> str:
        index = _INDEXES[failed](app)
        await set_aside_wrong_types(self._redis, {index: "zset"})
        return index
