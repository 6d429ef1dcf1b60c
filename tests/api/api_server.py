"""A real API on a real socket over the test's own Valkey, and a fake worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from arq.connections import ArqRedis
from document_check import check_each_response, document
from waiting import LIMIT

from api.server import bind, serve
from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.events import EventDraft
from worker.jobs.record import Block, Disclosure, JobError, Usage
from worker.settings import Settings
from worker.store.apps import SCOPES, Apps
from worker.store.jobs.output_chunks import OutputChunk, OutputChunks, PendingChunk
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import ClaimedJob


@dataclass
class Running:
    """A running API: its address, and how to get keys for it."""

    base_url: str
    host: str
    port: int
    apps: Apps
    clients: list[httpx2.AsyncClient]
    stop: asyncio.Event

    async def key(self, app: str = "acme", scopes: tuple[str, ...] = SCOPES) -> str:
        return (await self.apps.create_key(app, scopes))[1]

    async def client(
        self, app: str = "acme", scopes: tuple[str, ...] = SCOPES, key: str | None = None
    ) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {key or await self.key(app, scopes)}"}
        hooks = {"response": [check_each_response]}
        client = httpx2.AsyncClient(
            base_url=self.base_url, headers=headers, timeout=LIMIT, trust_env=False, event_hooks=hooks
        )
        self.clients.append(client)
        return self.clients[-1]


@asynccontextmanager
async def running(
    settings: Settings, redis: ArqRedis | None, clock: Clock, keys_in: ArqRedis | None = None
) -> AsyncIterator[Running]:
    ready, stop, sock = asyncio.Event(), asyncio.Event(), bind("127.0.0.1", 0)
    host, port = sock.getsockname()
    serving = asyncio.create_task(serve(settings, redis, ready=ready, stop=stop, sock=sock, clock=clock))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        waiting.cancel()
        serving.result()
    api = Running(f"http://{host}:{port}", host, port, Apps(keys_in or redis, clock), [], stop)
    try:
        yield api
    finally:
        for client in api.clients:
            await client.aclose()
        stop.set()
        await serving


class AdjustableClock(Clock):
    """The machine's clock, set forward by `ahead` seconds."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Worker:
    """A fake worker: claims a job and commits what happens to it."""

    def __init__(self, redis: ArqRedis, jobs: Jobs, clock: Clock) -> None:
        self.redis, self.jobs, self.clock, self.chunks = redis, jobs, clock, OutputChunks(redis)
        self.claimed: dict[str, ClaimedJob] = {}

    async def start(self, job_id: str, model: str = "gpt-5.6-sol") -> None:
        _, claimed = await self.jobs.claim("w1", 100, 60)
        self.claimed.update({h.job.id: h for h in claimed})
        await self.commit(job_id, (ev.Started(worker="w1", generation=1), None))
        await self.attempt(job_id, 1, model)

    async def attempt(self, job_id: str, number: int, model: str = "gpt-5.6-sol", purpose: str = "original") -> None:
        fact = ev.AttemptStarted(model=model, purpose=purpose, mode="background", client_request_id=f"c{number}")
        await self.commit(job_id, (fact, number))

    async def commit(self, job_id: str, *drafts: EventDraft, answer: dict[str, Any] | None = None) -> None:
        output = await self.jobs.seal_output(job_id, answer) if answer is not None else None
        await self.jobs.change(job_id, lambda _: drafts, token=self.claimed[job_id].token, output=output)

    async def text(self, job_id: str, attempt: int, offset: int, text: str) -> None:
        assert (
            await self.chunks.append(
                [PendingChunk(job_id, self.claimed[job_id].token, attempt, OutputChunk(-1, offset, text))]
            )
        )[1] == []

    async def check(self, job_id: str, attempt: int = 1) -> None:
        await self.commit(
            job_id, (ev.CheckStarted(evidence="signalled", use_cases=("cyber",), reasons=("user_risk",)), attempt)
        )

    async def complete(self, job_id: str, text: str = "The answer.", attempt: int = 1, **finished: Any) -> None:
        usage = Usage(input_tokens=10, output_tokens=5, total_tokens=15)
        end = ev.AttemptFinished(
            outcome="completed", served_model="gpt-5.6-sol", usage=usage, cost="0.0123", **finished
        )
        answer = {"output_text": text, "output": [{"type": "message", "text": text}], "refusal": None}
        await self.commit(job_id, (end, attempt), (ev.Completed(served_model="gpt-5.6-sol"), attempt), answer=answer)

    async def substitute(self, job_id: str, text: str = "Luna's answer.") -> None:
        """The job is completed by attempt 2 on another model."""
        statement = Disclosure(
            requested_model="gpt-5.6-sol",
            served_model="gpt-5.6-luna",
            reason="safety_check_delay",
            decided_by="policy",
            capability="lower",
            at=self.clock.now(),
            message="Answered by gpt-5.6-luna.",
        )
        await self.commit(
            job_id,
            (ev.AttemptFinished(outcome="substituted", cost="0.004"), 1),
            (ev.ModelSubstituted(disclosure=statement), 1),
        )
        await self.attempt(job_id, 2, "gpt-5.6-luna", "faster")
        await self.commit(
            job_id,
            (ev.AttemptFinished(outcome="completed", served_model="gpt-5.6-luna", cost="0.0083"), 2),
            (ev.Completed(served_model="gpt-5.6-luna", disclosure=statement), 2),
            answer={"output_text": text, "output": [], "refusal": None},
        )

    async def block(self, job_id: str, attempt: int = 1, **answer: Any) -> None:
        block = Block(category="cyber", code="cyber_policy", carrier="error_event", after_output=True, advice="Stop.")
        drafts = [(ev.AttemptFinished(outcome="blocked"), attempt), (ev.Blocked(block=block), attempt)]
        await self.commit(job_id, *drafts, answer=answer or None)

    async def fail(self, job_id: str, code: str = "server_error") -> None:
        error = JobError(type="provider", code=code, message="It broke.", advice="Try again.")
        await self.commit(
            job_id, (ev.AttemptFinished(outcome="server_error", error=error), 1), (ev.Failed(error=error), None)
        )


async def submitted(client: httpx2.AsyncClient, **changes: Any) -> str:
    """The id of a job that was just accepted."""
    answer = await client.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": "Explain tail latency.", **changes})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


class Stream:
    """The events of a job as a client reads them."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response, self._lines = response, response.aiter_lines()
        self.comments = 0

    async def next(self) -> dict[str, Any] | None:
        """The next event with `_id` and `_event`, or None when the stream has ended."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                event = json.loads(fields["data"])
                document().check("StreamedEvent", event)
                return {**event, "_id": fields.get("id"), "_event": fields["event"]}
        return None

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """All events up to the first of this type."""
        out: list[dict[str, Any]] = []
        while not out or out[-1]["type"] != kind:
            event = await self.next()
            assert event is not None, f"the stream ended before {kind}: {[e['type'] for e in out]}"
            out.append(event)
        return out

    async def remaining(self) -> Sequence[dict[str, Any]]:
        out = []
        while (event := await self.next()) is not None:
            out.append(event)
        return out


@asynccontextmanager
async def watching(
    client: httpx2.AsyncClient, job_id: str, headers: dict[str, str] | None = None, **params: Any
) -> AsyncIterator[Stream]:
    async with client.stream("GET", f"/v1/jobs/{job_id}/events", params=params, headers=headers or {}) as response:
        yield Stream(response)
