"""Runs a deployment with several stores in the test's own loop: real Valkeys, API over a socket, workers, simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from in_process import LIMIT, SOL, ScaledClock, until

from api.server import bind, serve
from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.main import WorkerProcess
from worker.settings import Settings
from worker.simulator import Simulator
from worker.store.apps import SCOPES, Apps
from worker.store.partitions.pins import Pins
from worker.store.partitions.stores import PartitionStore, partitions_open

SECRET = "whsec_" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


class Server(EmbeddedValkey):
    """A Valkey that writes to disk once a second."""

    def _options(self, path: Path) -> list[str]:
        return [*super()._options(path), "--appendfsync", "everysec"]


@dataclass
class Api:
    """One API process, and what the test knows of its apps."""

    url: str
    keys: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def of(self, app: str) -> AsyncIterator[httpx2.AsyncClient]:
        headers = {"Authorization": f"Bearer {self.keys[app]}"}
        async with httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=LIMIT, trust_env=False) as client:
            yield client

    async def get(self, app: str, path: str, status: int = 200) -> Any:
        async with self.of(app) as client:
            answer = await client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def post(self, app: str, path: str, body: Any = None, status: int = 200) -> Any:
        async with self.of(app) as client:
            answer = await client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def submit(self, app: str, text: str, **more: Any) -> str:
        return str((await self.post(app, "/v1/jobs", {"model": SOL, "input": text, **more}, 202))["id"])

    async def settled(self, app: str, job_id: str) -> dict[str, Any]:
        async def look() -> Any:
            found = await self.get(app, f"/v1/jobs/{job_id}")
            return found if found["status"] in {"completed", "failed", "blocked", "expired", "cancelled"} else None

        return dict(await until(f"{job_id} to settle", look))


class Deployment:
    """Stores by name, home first, and the processes that serve them."""

    def __init__(self, folder: Path, sim: Simulator, stack: AsyncExitStack) -> None:
        self.folder, self.sim, self._stack = folder, sim, stack
        self.servers: dict[str, Server] = {}
        self.workers: list[tuple[WorkerProcess, asyncio.Event, asyncio.Task[None]]] = []

    async def add_store(self, name: str) -> Server:
        server = self.servers[name] = Server(self.folder / name)
        await server.start()
        self._stack.push_async_callback(server.stop)
        return server

    def settings(self, names: Sequence[str], **more: Any) -> Settings:
        urls = [self.servers[name].url if name == "home" else f"{name}={self.servers[name].url}" for name in names]
        given = {
            "redis_url": " ".join(urls),
            "data_dir": self.folder / "data",
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": self.sim.url,
            "OPENAI_WEBHOOK_SECRET": SECRET,
            "lease_seconds": 60.0,
            "drain_seconds": 5.0,
            "audit_key": "A" * 43,
            "audit_seal_seconds": 0.2,
            **more,
        }
        return Settings(_env_file=None, **given)  # type: ignore[call-arg]

    @asynccontextmanager
    async def stores(self, names: Sequence[str]) -> AsyncIterator[Sequence[PartitionStore]]:
        async with partitions_open(self.settings(names), max_connections=4, guarded=False) as stores:
            yield stores

    async def key(self, api: Api, names: Sequence[str], app: str, partition: str | None = None) -> str:
        """Make a key of the app as `vigil keys create` does, and return where the app is."""
        async with self.stores(names) as stores:
            store = await Pins(stores).place(app, partition, ())
            _, api.keys[app], _ = await Apps(store.redis, Clock()).create_key(app, SCOPES)
            return store.partition.name

    @asynccontextmanager
    async def api(self, names: Sequence[str], **more: Any) -> AsyncIterator[Api]:
        ready, stop, sock = asyncio.Event(), asyncio.Event(), bind("127.0.0.1", 0)
        url = "http://{}:{}".format(*sock.getsockname())
        serving = asyncio.create_task(serve(self.settings(names, **more), ready=ready, stop=stop, sock=sock))
        await asyncio.wait([serving, asyncio.create_task(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        try:
            yield Api(url)
        finally:
            stop.set()
            await serving

    @asynccontextmanager
    async def worker(self, names: Sequence[str], **more: Any) -> AsyncIterator[WorkerProcess]:
        settings = self.settings(names, **more)
        async with partitions_open(settings, max_connections=16) as stores:
            process = WorkerProcess(settings, clock=ScaledClock(self.sim.world.pace), stores=stores)
            stop, ready = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(process.serve(stop, ready))
            await ready.wait()
            try:
                yield process
            finally:
                self.sim.set_speed(1e6)  # so that draining is short
                stop.set()
                await task
                self.sim.set_speed(20)


@asynccontextmanager
async def deployment(folder: Path, *names: str, speed: float = 20.0) -> AsyncIterator[Deployment]:
    """Yield a deployment with these stores, which run; no process serves them yet."""
    sim = Simulator(speed=speed)
    await sim.start()
    try:
        async with AsyncExitStack() as stack:
            made = Deployment(folder, sim, stack)
            for name in names:
                await made.add_store(name)
            yield made
    finally:
        await sim.stop()
