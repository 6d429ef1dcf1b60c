"""Real messages of an app to a receiver on a socket, by the worker's own delivery."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Self

from arq.connections import ArqRedis
from in_process import until

from worker.clock import Clock
from worker.store import keys
from worker.store.webhooks.delivery_log import DeliveryLog
from worker.store.webhooks.outbox import Outbox, OutboxMessage

sys.path.append(str(Path(__file__).parents[1] / "webhooks"))
from webhook_receivers import Post, Receiver

CANARY = "<script>alert('x')</script><img src=x onerror=alert(1)>"
APP = "acme"


class Hooks:
    """A receiver, and the delivery of an app's messages to it; a message that fails is not tried again by itself."""

    def __init__(self, redis: ArqRedis, url: str) -> None:
        self.redis, self.receiver, self.post = redis, Receiver(), Post(redis, url, Clock())
        self.log = DeliveryLog(redis, Clock(), Outbox(redis, Clock()))

    async def __aenter__(self) -> Self:
        await self.receiver.__aenter__()
        await self.post.__aenter__()
        await self.post.apps.create_key(APP, ("submit",))
        self.post.worker(webhook_schedule=(600.0,))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.post.__aexit__()
        await self.receiver.__aexit__()

    async def completed(self, count: int = 1) -> str:
        """Complete jobs whose webhook is this receiver; return the id of the last one."""
        job_id = ""
        for _ in range(count):
            job_id = await self.post.submit(self.receiver.url, app=APP)
            await self.post.complete(job_id)
        return job_id

    async def tried(self, count: int) -> list[OutboxMessage]:
        """Return the messages once so many were tried."""

        async def enough() -> bool:
            return len((await self.log.page(APP, 100))[0]) == count

        await until(f"{count} tried messages", enough)
        return [one.message for one in (await self.log.page(APP, 100))[0]]

    async def failed(self, count: int) -> None:
        """Wait until the last try of so many messages has failed."""

        async def enough() -> bool:
            return await self.log.count_failed(APP) == count

        await until(f"{count} failed messages", enough)

    async def fill(self, message: OutboxMessage, count: int) -> None:
        """Put so many copies of a message into the log."""
        for start in range(0, count, 500):
            async with self.redis.pipeline(transaction=False) as pipe:
                for number in range(start, start + 500):
                    copy = replace(message, id=f"msg_{number:026}")
                    pipe.set(keys.message(copy.id), copy.dump())
                    pipe.zadd(keys.undelivered_messages(APP), {copy.id: 1_000 + number})
                await pipe.execute()
            await asyncio.sleep(0)
