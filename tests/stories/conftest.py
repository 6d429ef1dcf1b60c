"""One running Vigil for a story: API, worker and fake provider, and the Python client of an app."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis
from full_stack import full_stack
from story import Story

from worker.client import AsyncVigil


@pytest.fixture
async def vigil(redis: ArqRedis, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Story]:
    """A Vigil with one worker. The provider is in no hurry: its seconds pass 20 times as fast as ours."""
    monkeypatch.setenv("VIGIL_WEBHOOK_ALLOW_PRIVATE", "1")  # the stories' receivers listen on 127.0.0.1
    async with full_stack(redis, valkey_url, speed=20) as running:
        await running.stage.worker()
        key = running.app.headers["Authorization"].removeprefix("Bearer ")
        async with AsyncVigil(str(running.app.base_url), key) as app:
            yield Story(app, running.stage.sim, running.stage, key, str(running.app.base_url))
