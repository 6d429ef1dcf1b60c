"""Fixtures for the client: a real API behind a proxy that can break connections, and both clients in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from breaking_proxy import Both, Proxy, both
from installed_client import InstalledClient, installed_once

from worker.clock import Clock
from worker.settings import Settings
from worker.store.jobs.repository import Jobs


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> InstalledClient:
    """The distribution `vigil-client`, without the rest of Vigil: installed once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "installed-client"
    folder.mkdir(exist_ok=True)
    return installed_once(folder)


@pytest.fixture
async def api(settings: Settings, redis: ArqRedis, clock: Clock) -> AsyncIterator[Any]:
    from api_server import running

    async with running(settings, redis, clock) as api:
        yield api


@pytest.fixture
async def proxy(api: Any) -> AsyncIterator[Proxy]:
    async with Proxy() as proxy:
        proxy.to = (api.host, api.port)
        yield proxy


@pytest.fixture(params=["blocking", "awaiting"])
async def vigil(request: pytest.FixtureRequest, api: Any, proxy: Proxy) -> AsyncIterator[Both]:
    async with both(request.param, proxy.url, await api.key()) as client:
        yield client


@pytest.fixture
def worker(redis: ArqRedis, jobs: Jobs, clock: Clock) -> Any:
    from api_server import Worker

    return Worker(redis, jobs, clock)
