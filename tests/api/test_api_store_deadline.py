"""How long a request waits for Redis: its own process's lateness is no fault of Redis."""

from __future__ import annotations

import asyncio
import time

import pytest
from starlette.requests import Request

from api.runtime.store_deadline import with_deadline, with_timeout
from worker.jobs.errors import StoreUnavailable
from worker.store.connection.archive_waits import waiting_for_archive

pytestmark = pytest.mark.production_timeouts


async def test_a_store_that_does_not_answer_in_time_is_unavailable():
    with pytest.raises(StoreUnavailable):
        await with_timeout(0.05, asyncio.sleep(3600))


async def test_a_loop_that_comes_late_does_not_blame_the_store():
    async def keep_the_loop_busy() -> None:
        for _ in range(4):
            time.sleep(0.3)
            await asyncio.sleep(0)

    async def answered_at_once() -> str:
        for _ in range(4):
            await asyncio.sleep(0.001)
        return "answer"

    busy = asyncio.create_task(keep_the_loop_busy())
    assert await with_timeout(0.5, answered_at_once()) == "answer"
    await busy


async def archive_takes(seconds: float, then: float = 0.0) -> str:
    async with waiting_for_archive():
        await asyncio.sleep(seconds)
    await asyncio.sleep(then)
    return "answer"


async def test_the_time_for_redis_does_not_count_what_the_archive_takes():
    assert await with_timeout(0.5, archive_takes(1.0, then=0.2)) == "answer"
    assert await with_timeout(0.5, archive_takes(0.4, then=0.2)) == "answer"
    with pytest.raises(StoreUnavailable):
        await with_timeout(0.1, archive_takes(0.3, then=3600))


async def test_a_slow_archive_leaves_a_request_its_time_for_redis():
    request = Request({"type": "http", "headers": []})
    assert await with_deadline(request, archive_takes(2.0)) == "answer"
    assert await with_deadline(request, asyncio.sleep(0.5, "more")) == "more"
