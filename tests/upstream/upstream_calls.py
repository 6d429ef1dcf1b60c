"""Helps the tests of `upstream`: makes a call, collects all events of an answer or of a session, and their kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from waiting import LIMIT

from tests.upstream.rawserver import RawServer, plays
from worker.safety.stream import StreamEvent
from worker.upstream.answer import UpstreamAnswer
from worker.upstream.call import UpstreamCall
from worker.upstream.client import Provider
from worker.upstream.session import Session

ProviderAt = Callable[..., Provider]


def call(mode: str = "stream", **values: Any) -> UpstreamCall:
    return UpstreamCall(
        **({"model": "gpt-5.6-sol", "mode": mode, "client_request_id": "att_1", "input": "hi"} | values)
    )


async def drain(answer: UpstreamAnswer) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    while batch := await answer.read():
        events += batch
    return events


async def events_of(provider_at: ProviderAt, *parts: bytes, mode: str = "stream") -> list[StreamEvent]:
    async with RawServer(plays(*parts)) as server:
        return await drain(provider_at(server.url).open(call(mode)))


def kinds(events: list[StreamEvent]) -> list[type]:
    return [type(event) for event in events]


class Sleeps:
    """A sleep that only records its durations."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


class Rig:
    """A provider, and sessions with it."""

    def __init__(self, provider_at: ProviderAt) -> None:
        self._provider_at = provider_at
        self.sleeps = Sleeps()

    def session(self, url: str, the_call: UpstreamCall | None = None, **options: Any) -> Session:
        options = {"sleep": self.sleeps} | options
        return Session(self._provider_at(url), the_call or call("background"), **options)


async def play(session: Session) -> list[StreamEvent]:
    """Return every event of a session and close it."""
    events: list[StreamEvent] = []
    async with asyncio.timeout(LIMIT):
        async for batch in session.batches():
            assert batch
            events += batch
    await session.aclose()
    return events


async def rest_of(batches: Any) -> list[StreamEvent]:
    return [event async for batch in batches for event in batch]
