"""A simulator on a socket of its own and the real SDK pointed at it: no patched clients anywhere."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from openai import AsyncOpenAI
from waiting import LIMIT

from worker.simulator import Simulator

Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """A simulator in which a simulated second takes a millisecond."""
    async with Simulator(speed=1000) as simulator:
        yield simulator


@pytest.fixture
async def slow() -> AsyncIterator[Simulator]:
    """A simulator in which a simulated second takes a fiftieth."""
    async with Simulator(speed=50) as simulator:
        yield simulator


@pytest.fixture
async def client(sim: Simulator) -> AsyncIterator[AsyncOpenAI]:
    """The SDK, pointed at `sim`."""
    async with sdk(sim) as made:
        yield made


@pytest.fixture
async def slow_client(slow: Simulator) -> AsyncIterator[AsyncOpenAI]:
    """The SDK, pointed at `slow`."""
    async with sdk(slow) as made:
        yield made


@pytest.fixture
def until() -> Until:
    """Wait for a condition."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not condition():
                await asyncio.sleep(0.002)

    return wait


def sdk(simulator: Simulator) -> AsyncOpenAI:
    """Return a client that never retries by itself."""
    return AsyncOpenAI(api_key="sk-sim", base_url=simulator.url, max_retries=0, timeout=LIMIT)
