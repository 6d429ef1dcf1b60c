"""Long work in slices: others have their turn after each, and most of the time is theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from api.runtime.background_work import BackgroundWork
from api.runtime.slices import in_slices

STEPS = 60


def busy() -> Iterator[int]:
    """Steps of a millisecond of this process's time."""
    for number in range(STEPS):
        until = time.thread_time() + 0.001
        while time.thread_time() < until:
            pass
        yield number


async def test_others_have_their_turns_and_two_thirds_of_the_time():
    turns, loop = 0, asyncio.get_running_loop()

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    serving = asyncio.create_task(others())
    began = loop.time()
    assert [number async for number in in_slices(busy())] == list(range(STEPS))
    took = loop.time() - began
    serving.cancel()
    assert turns > STEPS / 5
    assert took > 2.5 * STEPS * 0.001


async def test_background_work_goes_on_when_nobody_waits_and_ends_with_the_process():
    work, done = BackgroundWork(), list[str]()

    async def slow(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        done.append(name)

    async def wrong() -> None:
        raise ValueError("told to who waits")

    assert await work.finished("quick", slow("quick", 0), 5) is True
    assert await work.finished("slow", slow("slow", 0.05), 0.001) is False
    with pytest.raises(ValueError, match="told"):
        await work.finished("wrong", wrong(), 5)
    work.start("endless", slow("endless", 3_600))
    await asyncio.sleep(0.2)
    assert done == ["quick", "slow"]
    await work.stop()
    assert done == ["quick", "slow"]
