"""Fixtures for the API: it runs on a real socket over the test's own Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_server import Running, Worker, running
from arq.connections import ArqRedis

from worker.clock import Clock
from worker.settings import Settings
from worker.store.jobs.repository import Jobs


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path, max_body_bytes=64 * 1024)


@pytest.fixture
async def api(settings: Settings, redis: ArqRedis, clock: Clock) -> AsyncIterator[Running]:
    async with running(settings, redis, clock) as api:
        yield api


@pytest.fixture
async def acme(api: Running) -> httpx2.AsyncClient:
    return await api.client("acme")


@pytest.fixture
def job_body() -> dict[str, Any]:
    return {"model": "gpt-5.6-sol", "input": "Explain tail latency."}


@pytest.fixture
def worker(redis: ArqRedis, jobs: Jobs, clock: Clock) -> Worker:
    return Worker(redis, jobs, clock)
