"""Fixtures of the console: the API with it, over the test's own Valkey."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from arq.connections import ArqRedis
from browser import BrowserStack, browser_stack, emptied, open_browser
from console_server import Console, serving
from playwright.async_api import Browser

from worker.clock import Clock
from worker.settings import Settings


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path)


@pytest.fixture
async def console(settings: Settings, redis: ArqRedis, clock: Clock) -> AsyncIterator[Console]:
    async with serving(settings, redis, clock) as console:
        yield console


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with open_browser() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def stack(valkey_url: str, browser: Browser) -> AsyncIterator[BrowserStack]:
    """A whole Vigil, and a browser; for tests with `loop_scope="session"`."""
    async with emptied(valkey_url) as redis, browser_stack(redis, valkey_url, browser) as stack:
        yield stack
