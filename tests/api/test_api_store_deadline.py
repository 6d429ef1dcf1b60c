"""How long a request waits for Redis: its own process's lateness is no fault of Redis."""

from __future__ import annotations

import asyncio
import time

import pytest

from api.runtime.store_deadline import with_timeout
from worker.jobs.errors import StoreUnavailable

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
