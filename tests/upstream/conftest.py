from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.upstream.upstream_calls import Rig
from worker.upstream.client import Provider
from worker.upstream.proxy_transport import ProxyTransport


@pytest.fixture
def over() -> str:
    """Return the transport; a module may override it to test both."""
    return "wire"


@pytest.fixture
async def provider_at(over: str) -> AsyncIterator[Callable[..., Provider]]:
    """Make providers for base URLs; they are closed at the end of the test."""
    made: list[Provider] = []

    def make(url: str, **options: object) -> Provider:
        if over == "aiohttp":
            options = {"transport": ProxyTransport(connect_timeout=10.0, proxy=None)} | options
        made.append(Provider("sk-test", url, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for provider in made:
        await provider.aclose()


@pytest.fixture
def rig(provider_at: Callable[..., Provider]) -> Rig:
    """Make sessions that do not really sleep."""
    return Rig(provider_at)
