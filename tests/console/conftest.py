"""Fixtures of the console: the API with it, over the test's own Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from console_server import Console, serving

from worker.clock import Clock
from worker.settings import Settings


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path)


@pytest.fixture
async def console(settings: Settings, redis: ArqRedis, clock: Clock) -> AsyncIterator[Console]:
    async with serving(settings, redis, clock) as console:
        yield console
