"""Helpers of the tests of malformed requests: an API with one of everything, and checks of a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from api_server import Running, submitted
from arq.connections import ArqRedis
from test_api_malformed import CANARY

from worker.store import keys

URL = "https://app.example/hooks"
_KEY_USES = keys.KEY_USES.encode()  # when a key was used last: written about once a minute


@dataclass
class FurnishedApi:
    """An API with one job, one endpoint and one message, and a client of its Redis."""

    api: Running
    client: httpx2.AsyncClient
    redis: ArqRedis
    job: str
    endpoint: str
    message: str

    def path(self, template: str) -> str:
        names = {"job_id": self.job, "endpoint_id": self.endpoint, "message_id": self.message}
        return template.format(**names)

    async def dump(self) -> dict[bytes, bytes | None]:
        """Everything in Redis except what changes by itself: rate buckets, heartbeats, uses of keys."""
        changing = (b"vigil:rate:", keys.API_HEARTBEATS.encode(), _KEY_USES)
        names = [name for name in await self.redis.keys("*") if not name.startswith(changing)]
        return {name: await self.redis.dump(name) for name in sorted(names)}

    async def send(self, method: str, path: str, **given: Any) -> httpx2.Response:
        return await self.client.request(method, self.path(path), **given)


async def furnish(api: Running, redis: ArqRedis) -> FurnishedApi:
    client = await api.client()
    job = await submitted(client, end_user="ann", webhook={"url": URL, "events": ["job.queued"]})
    endpoint = (await client.post("/v1/webhook-endpoints", json={"url": URL})).json()["id"]
    message = (await client.get(f"/v1/jobs/{job}/deliveries")).json()["data"][0]["id"]
    return FurnishedApi(api, client, redis, job, endpoint, message)


@asynccontextmanager
async def unchanged(target: FurnishedApi) -> AsyncIterator[None]:
    """Check that what is sent inside changes nothing in Redis, and that the server still responds."""
    before = await target.dump()
    yield
    assert await target.dump() == before
    assert (await target.client.get("/readyz")).status_code == 200


def refusal(answer: httpx2.Response, *statuses: int) -> str:
    """Check a refusal and return its code."""
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    assert CANARY not in answer.text
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    body = answer.json()
    if answer.headers["content-type"] == "application/json":
        assert answer.url.path.startswith(("/v1/responses", "/v1/chat", "/v1/conversations"))
        assert set(body) == {"error"}
        assert set(body["error"]) - {"vigil"} == {"message", "type", "code", "param"}
        return str(body["error"]["code"])
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == answer.status_code
    assert body["detail"]
    return str(body["code"])
