"""Values that open pages share: one read for all, a new version only for a new value."""

from __future__ import annotations

import asyncio

import pytest

from api.runtime.live_values import LiveValues
from worker.clock import Clock


class SetClock(Clock):
    """A clock that stands until it is set."""

    at = 100.0

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


class Source:
    """A value that counts its reads."""

    def __init__(self) -> None:
        self.value: object = "a"
        self.reads = 0
        self.go = asyncio.Event()
        self.go.set()

    async def read(self) -> object:
        self.reads += 1
        value = self.value
        await self.go.wait()
        if isinstance(value, Exception):
            raise value
        return value


async def test_all_who_ask_share_a_read_and_a_version(clock):
    live, source = LiveValues(clock), Source()
    source.go.clear()
    asking = [asyncio.create_task(live.read("x", 5, source.read)) for _ in range(50)]
    await asyncio.sleep(0)
    source.go.set()
    found = await asyncio.gather(*asking)
    assert source.reads == 1
    assert len({one.version for one in found}) == 1
    clock.at += 6
    assert (await live.read("x", 5, source.read)).version == found[0].version
    assert source.reads == 2
    source.value = "b"
    clock.at += 6
    assert (await live.read("x", 5, source.read)).version != found[0].version


async def test_an_error_is_for_those_who_asked_and_is_not_kept(clock):
    live, source = LiveValues(clock), Source()
    source.value = OSError("away")
    with pytest.raises(OSError, match="away"):
        await live.read("x", 5, source.read)
    source.value = "a"
    assert (await live.read("x", 5, source.read)).value == "a"


async def test_who_leaves_ends_no_read_of_others(clock):
    live, source = LiveValues(clock), Source()
    source.go.clear()
    leaving, staying = (asyncio.create_task(live.read("x", 5, source.read)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    source.go.set()
    assert (await staying).value == "a"
