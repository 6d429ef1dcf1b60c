"""A real API with its console on a real socket, and a client that behaves as a browser does: cookies, Origin."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx2
from arq.connections import ArqRedis
from waiting import LIMIT

from api.server import bind, serve
from worker.clock import Clock
from worker.settings import Settings
from worker.store.apps import SCOPES, ApiKey, Apps
from worker.store.console_access import ConsoleAccess


@dataclass
class Console:
    """A running API: its address, and how to get in."""

    base_url: str
    redis: ArqRedis
    clients: list[httpx2.AsyncClient]

    async def key(self, app: str = "acme", scopes: tuple[str, ...] = SCOPES) -> tuple[ApiKey, str]:
        """Return a new key of the app, and its text."""
        record, text, _ = await Apps(self.redis, Clock()).create_key(app, scopes)
        return record, text

    async def link(self, key: ApiKey) -> str:
        """Return the token of a one-time link for this key."""
        return await ConsoleAccess(self.redis, Clock()).create_link(key.id)

    def visitor(self, **headers: str) -> Visitor:
        """Return a browser without a session."""
        client = httpx2.AsyncClient(base_url=self.base_url, timeout=LIMIT, trust_env=False)
        self.clients.append(client)
        return Visitor(client, headers)

    async def logged_in(self, app: str = "acme", scopes: tuple[str, ...] = SCOPES) -> Visitor:
        """Return a browser that has logged in with a new key."""
        visitor = self.visitor()
        answer = await visitor.log_in((await self.key(app, scopes))[1])
        assert answer.status_code == 303, answer.text
        return visitor


class Visitor:
    """Requests as a browser sends them: a form has its page's Origin."""

    def __init__(self, client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
        self.client, self.headers = client, {"Accept": "text/html", **headers}
        self.origin = str(client.base_url).rstrip("/")

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.client.get(path, headers={**self.headers, **headers})

    async def post(self, path: str, form: dict[str, Any], **headers: str) -> httpx2.Response:
        sent = {**self.headers, "Origin": self.origin, "Sec-Fetch-Site": "same-origin", **headers}
        sent = {"Content-Type": "application/x-www-form-urlencoded", **sent}
        return await self.client.post(path, content=urlencode(form), headers={k: v for k, v in sent.items() if v})

    async def log_in(self, secret: str, **form: str) -> httpx2.Response:
        return await self.post("/console/login", {"secret": secret, **form})

    async def csrf(self) -> str:
        """Return the CSRF token that the session's pages put into their forms."""
        found = re.search(r'name="csrf" value="([^"]+)"', (await self.get("/console/now")).text)
        assert found is not None
        return unescape(found[1])

    async def act(self, path: str, **form: Any) -> httpx2.Response:
        """Send a form as a page of this session does."""
        return await self.post(path, {"csrf": await self.csrf(), **form})


@asynccontextmanager
async def serving(settings: Settings, redis: ArqRedis, clock: Clock | None = None) -> AsyncIterator[Console]:
    """Run the API with these settings."""
    ready, stop, sock = asyncio.Event(), asyncio.Event(), bind("127.0.0.1", 0)
    base = "http://{}:{}".format(*sock.getsockname())
    running = asyncio.create_task(serve(settings, redis, ready=ready, stop=stop, sock=sock, clock=clock))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        waiting.cancel()
        running.result()
    console = Console(base, redis, [])
    try:
        yield console
    finally:
        for client in console.clients:
            await client.aclose()
        stop.set()
        await running


async def submitted(console: Console, key: str, **body: Any) -> str:
    """Submit a job over the API and return its id."""
    async with httpx2.AsyncClient(base_url=console.base_url, timeout=LIMIT, trust_env=False) as client:
        answer = await client.post(
            "/v1/jobs",
            json={"model": "gpt-5.6-sol", "input": "Hi", **body},
            headers={"Authorization": f"Bearer {key}"},
        )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])
