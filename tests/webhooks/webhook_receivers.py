"""Helps the webhook tests: receivers that listen on real sockets, and delivery over the test's own Valkey."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from arq.connections import ArqRedis
from builders import STARTED, began, done, new_job
from in_process import until
from standardwebhooks.webhooks import Webhook
from waiting import LIMIT

from worker.clock import Clock
from worker.jobs import events as ev
from worker.settings import Settings
from worker.store.apps import Apps
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob
from worker.store.webhooks.endpoints import Endpoint, Endpoints
from worker.store.webhooks.outbox import Outbox, OutboxMessage
from worker.tasks.delivery.dispatcher import Dispatcher

ENDS = ("job.completed", "job.blocked", "job.failed", "job.cancelled", "job.expired")
COMPLETED = (ev.Completed(served_model="gpt-5.6-sol"), 1)
LIFE = [(STARTED, None), (began(), 1), (done(), 1), COMPLETED]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_aGVsbG8gdGhpcyBpcyBhbiBvbGQgc2VjcmV0IQ=="


@dataclass
class Got:
    """One request as a receiver saw it."""

    at: float
    path: str
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def where(self) -> tuple[str, int]:
        data = self.json["data"]
        return data["id"], data["seq"]


Answer = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


async def _ok(request: web.Request, count: int) -> web.StreamResponse:
    return web.Response(status=204)


class Receiver:
    """An app's webhook receiver; `answer` makes the answer to its n-th request (from 1)."""

    def __init__(self, answer: Answer = _ok) -> None:
        self.answer, self.got = answer, list[Got]()
        self._runner: web.AppRunner | None = None

    def says(self, *statuses: int, headers: dict[str, str] | None = None, text: str = "") -> None:
        """These statuses in turn; the last one for ever."""

        async def answer(_: web.Request, count: int) -> web.StreamResponse:
            status = statuses[min(count, len(statuses)) - 1]
            return web.Response(status=status, headers=headers, text=text or None)

        self.answer = answer

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append(Got(time.monotonic(), request.path_qs, headers, body.decode()))
        return await self.answer(request, len(self.got))

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.port = int(self._runner.addresses[0][1])
        self.url = f"http://127.0.0.1:{self.port}/hooks"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def gets(self, count: int, seconds: float = LIMIT) -> list[Got]:
        """The first `count` requests, as soon as they are there."""

        async def enough() -> bool:
            return len(self.got) >= count

        await until(f"{count} requests ({len(self.got)} came)", enough, seconds)
        return self.got[:count]


def verified(got: Got, secret: str) -> dict[str, Any]:
    """Return the body after the `standardwebhooks` package has verified it, as a receiver would."""
    value: dict[str, Any] = Webhook(secret).verify(got.body, got.headers)
    return value


class Post:
    """Commits the events of jobs like a worker, and runs the real delivery."""

    def __init__(self, redis: ArqRedis, url: str, clock: Clock) -> None:
        self.redis, self.url, self.clock = redis, url, clock
        self.jobs, self.outbox = Jobs(redis, clock), Outbox(redis, clock)
        self.endpoints, self.apps = Endpoints(redis, clock), Apps(redis, clock)
        self._running: list[asyncio.Task[None]] = []
        self.secret = ""

    async def __aenter__(self) -> Self:
        self.secret = (await self.apps.create_key("shop", ("submit",)))[2]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        for done_one in await asyncio.gather(*self._running, return_exceptions=True):
            if isinstance(done_one, Exception):
                raise done_one

    def settings(self, **more: Any) -> Settings:
        given = {"redis_url": self.url, "webhook_allow_private": True, "lease_seconds": 60.0, **more}
        return Settings(_env_file=None, **given)  # type: ignore[call-arg]

    def worker(
        self, name: str = "w1", *, sender: Any = None, clock: Clock | None = None, **settings: Any
    ) -> Dispatcher:
        """One more delivering part, running."""
        delivery = Dispatcher(self.redis, clock or self.clock, self.settings(**settings), name, sender=sender)
        self._running.append(asyncio.create_task(delivery.run(), name=name))
        return delivery

    async def stop(self) -> None:
        """All delivering parts end as at a shutdown."""
        running, self._running[:] = list(self._running), []
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def endpoint(self, url: str, events: tuple[str, ...] = ENDS, payload: str = "thin", **more: Any) -> Endpoint:
        secret = more.pop("secret", SECRET)
        return await self.endpoints.create(
            "shop", url=url, events=events, payload=payload, description="", secret=secret, **more
        )

    async def submit(self, url: str = "", events: tuple[str, ...] = ENDS, payload: str = "thin", **fact: Any) -> str:
        """The id of a new job, with a webhook of its own when there is a URL."""
        hook = {"url": url, "payload": payload, "events": list(events)} if url else None
        new = new_job(webhook_events=events if url else (), **fact)
        private = {"metadata": {"ticket": "A-17"}, "webhook": hook}
        stored, _ = await self.jobs.submit(NewJob(new.fact, private, new.input))
        return stored.job.id

    async def complete(self, job_id: str, text: str = "The secret answer.") -> None:
        answer = await self.jobs.seal_output(job_id, {"output_text": text, "output": [], "draft": "A draft."})
        await self.jobs.change(job_id, lambda _: LIFE, output=answer)

    async def messages(self, job_id: str) -> list[tuple[OutboxMessage, list[dict[str, Any]]]]:
        return await self.outbox.of_job(job_id)

    async def message(
        self, job_id: str, state: str, tries: int | None = None
    ) -> tuple[OutboxMessage, list[dict[str, Any]]]:
        """The job's only message with its receipts, once it has this state and so many receipts."""

        async def look() -> Any:
            rows = await self.messages(job_id)
            if len(rows) == 1 and rows[0][0].state == state and tries in {None, len(rows[0][1])}:
                return rows[0]
            return None

        row: tuple[OutboxMessage, list[dict[str, Any]]] = await until(f"{job_id}: a message that is {state}", look)
        return row
