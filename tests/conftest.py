"""Fixtures for every room: a real Valkey for the session, emptied for each test, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import forked_vigil
import pytest
from arq.connections import ArqRedis
from builders import VAULT
from leftovers import left_running
from lone_node import ON_CLUSTER, one_node
from s3_server import S3Server, s3_server
from thorough import load_profile

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs
from worker.telemetry import events

load_profile()
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup: the processes under test would inherit that
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
gc.set_threshold(50_000, 20, 50)  # as in `vigil api`: what collection imports is many objects, and none is garbage
events.set_strict()  # what no table of telemetry lists is a fault


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: no collection of garbage looks at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After the last test no process runs that one of them started."""
    yield
    forked_vigil.stop()
    assert left_running(tmp_path_factory.getbasetemp()) == []


class Quick(EmbeddedValkey):
    """A server that writes to disk once a second."""

    def _options(self, path: Path) -> list[str]:
        return [*super()._options(path), "--appendfsync", "everysec"]


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Valkey of our own, as shipped but for one thing: nobody waits for the disk.

    What survives a crash is shown by tests with servers of their own, which they kill.
    """
    folder: Path = tmp_path_factory.mktemp("valkey")
    if ON_CLUSTER:
        with one_node(folder) as url:
            yield url
        return
    server = Quick(folder)
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A real S3 server for the session, started by the first test that wants it; each test has buckets of its own."""
    with s3_server() as server:
        yield server


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[ArqRedis]:
    """A client on an empty database."""
    client = connect(valkey_url, keyring=VAULT)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(autouse=True)
def long_store_timeouts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API in this process waits 40 times as long for Redis, so that a busy machine causes no 503."""
    store_deadline = sys.modules.get("api.runtime.store_deadline")
    if store_deadline is not None and request.node.get_closest_marker("production_timeouts") is None:
        monkeypatch.setattr(store_deadline, "StoreTimeout", lambda seconds: asyncio.timeout(40 * seconds))


@pytest.fixture
def clock() -> Clock:
    """The machine's clock and random numbers."""
    return Clock()


@pytest.fixture
def telemetry_events() -> Iterator[list[tuple[str, dict[str, object]]]]:
    """Every event of telemetry that is told during the test, with its fields."""
    recorded: list[tuple[str, dict[str, object]]] = []

    def record(name: str, fields: Mapping[str, object]) -> None:
        recorded.append((name, dict(fields)))

    events.subscribe(record)
    yield recorded
    events.unsubscribe(record)


@pytest.fixture
def jobs(redis: ArqRedis, clock: Clock) -> Jobs:
    """The jobs in the test's Redis."""
    return Jobs(redis, clock)
