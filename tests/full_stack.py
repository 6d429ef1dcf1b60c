"""Runs simulator, workers and the API in one loop, with the provider's webhooks connected between them. No mocks.

`async with full_stack(redis, url) as running:` then `running.stage.worker()`, `running.submit(...)` and
`running.view(job_id)`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from arq.connections import ArqRedis
from in_process import LIMIT, SOL, Stage, until

from api.server import bind, serve
from worker.clock import Clock
from worker.settings import Settings
from worker.store.apps import SCOPES, Apps

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass
class FullStack:
    """Simulator and workers, an API beside them, and an app's client of the API."""

    stage: Stage
    app: httpx2.AsyncClient

    async def submit(self, text: str, **more: Any) -> str:
        answer = await self.app.post("/v1/jobs", json={"model": SOL, "input": text, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def view(self, job_id: str) -> dict[str, Any]:
        return dict((await self.app.get(f"/v1/jobs/{job_id}")).json())

    async def notice(self, job_id: str, ready=lambda notice: True, seconds: float = LIMIT) -> dict[str, Any]:
        """Return the job's one notice, once it is there and ready."""

        async def look() -> Any:
            found = (await self.view(job_id))["safety"]["notices"]
            return found[0] if found and ready(found[0]) else None

        return dict(await until(f"a notice on {job_id}", look, seconds))


@asynccontextmanager
async def full_stack(redis: ArqRedis, url: str, **settings: Any) -> AsyncIterator[FullStack]:
    ready, stop, sock = asyncio.Event(), asyncio.Event(), bind("127.0.0.1", 0)
    base = "http://{}:{}".format(*sock.getsockname())
    of_both = ("accounts_file", "shared_provider_state", "webhook_allow_private", "webhook_ports")
    shared = {name: settings[name] for name in of_both if name in settings}
    settings_of_api = Settings(_env_file=None, redis_url=url, OPENAI_WEBHOOK_SECRET=SECRET, **shared)
    settings_of_api = settings_of_api.with_account_secrets(settings.get("account_secrets", {}))
    serving = asyncio.create_task(serve(settings_of_api, redis, ready=ready, stop=stop, sock=sock))
    await ready.wait()
    key = (await Apps(redis, Clock()).create_key("acme", SCOPES))[1]
    async with Stage(redis, url, **settings) as stage:
        stage.sim.world.webhooks.url, stage.sim.world.webhooks.secret = f"{base}/hooks/openai", SECRET
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=LIMIT, trust_env=False) as app:
            yield FullStack(stage, app)
    stop.set()
    await serving
