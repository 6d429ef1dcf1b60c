"""OpenAI's own SDK against a real API, with a real worker and the simulator behind it, or with a fake worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from api_server import Running, running
from arq.connections import ArqRedis
from in_process import LIMIT, Stage
from openai import AsyncOpenAI, OpenAI

from worker.clock import Clock
from worker.settings import Settings

T = TypeVar("T")
SOL, LUNA = "gpt-5.6-sol", "gpt-5.6-luna"


@dataclass
class RunningSdk:
    """Everything that runs, and the SDK's clients."""

    stage: Stage
    api: Running
    key: str
    client: AsyncOpenAI
    blocking: OpenAI
    http: httpx2.AsyncClient

    async def frames(self, response_id: str, **params: Any) -> list[tuple[int, bytes]]:
        return await frames(self.http, response_id, **params)


@asynccontextmanager
async def sdk_against_api(
    settings: Settings, redis: ArqRedis, clock: Clock, url: str, *, speed: float = 20.0, worker: bool = True
) -> AsyncIterator[RunningSdk]:
    async with Stage(redis, url, speed=speed, lease_seconds=4.0) as stage, running(settings, redis, clock) as api:
        if worker:
            await stage.worker()
        key = await api.key()
        given: dict[str, Any] = {"base_url": f"{api.base_url}/v1", "api_key": key, "max_retries": 0, "timeout": LIMIT}
        http = await api.client(key=key)
        async with AsyncOpenAI(**given) as client:
            with OpenAI(**given) as blocking:
                yield RunningSdk(stage, api, key, client, blocking, http)


async def blocking(call: Callable[[], T]) -> T:
    """The result of a call of the blocking SDK, made outside this loop."""
    return await asyncio.to_thread(call)


async def frames(http: httpx2.AsyncClient, response_id: str, **params: Any) -> list[tuple[int, bytes]]:
    """(number, the frame's bytes) of a whole replay."""
    answer = await http.get(f"/v1/responses/{response_id}", params={"stream": "true", **params})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    raw = [frame for frame in answer.content.split(b"\n\n") if frame and not frame.startswith(b":")]
    return [(json.loads(frame.partition(b"data: ")[2])["sequence_number"], frame) for frame in raw]


def gapless(numbers: list[int], first: int = 0) -> bool:
    return numbers == list(range(first, first + len(numbers)))
