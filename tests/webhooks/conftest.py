"""Provides fixtures for webhooks: receivers on loopback sockets and the worker's delivery, without mocks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis
from webhook_receivers import Post, Receiver

from worker.clock import Clock


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as one:
        yield one


@pytest.fixture
async def post(redis: ArqRedis, valkey_url: str, clock: Clock) -> AsyncIterator[Post]:
    async with Post(redis, valkey_url, clock) as office:
        yield office
