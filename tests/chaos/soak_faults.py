"""What happens to a deployment during the soak: its processes die, freeze and leave, Redis and the archive too.

Only processes that the soak started are signalled. Each new process is of this release or of the next, at random.
"""

from __future__ import annotations

import asyncio
import os
import random  # noqa: TID251  seeded, so that a run can be repeated
import signal
from collections import Counter

from archive_outages import ArchiveDoor
from guarded_store import GuardedStore
from processes import Processes, free_port

FAULTS = {
    "worker killed": 4,
    "worker frozen past its lease": 2,
    "worker asked to leave": 2,
    "Redis killed, started from its file": 2,
    "Redis frozen": 1,
    "API killed": 2,
    "API asked to leave": 1,
    "archive killed": 2,
    "archive frozen": 1,
}
"""Name and weight; those of the archive only where there is one."""


class Fleet:
    """The workers and APIs of both releases, and what befalls them."""

    def __init__(
        self, stage: Processes, store: GuardedStore, door: ArchiveDoor | None, next_release: str, rng: random.Random
    ) -> None:
        self._stage, self._store, self._door, self._rng = stage, store, door, rng
        self._releases = {"this release": "", "the next release": next_release}
        self._api_ports = (free_port(), free_port())
        self._workers: list[asyncio.subprocess.Process] = []
        self._apis: dict[int, asyncio.subprocess.Process] = {}
        self._happening: asyncio.Future[None] | None = None
        self.happened, self.started = Counter[str](), Counter[str]()

    @property
    def urls(self) -> list[str]:
        """Where the APIs listen, whether they run or not."""
        return [f"http://127.0.0.1:{port}" for port in self._api_ports]

    async def start(self, workers: int) -> None:
        """Start the APIs and workers, one of each release at least."""
        for port, release in zip(self._api_ports, self._releases, strict=True):
            await self._start_api(port, release)
        for number in range(workers):
            await self._start_worker(list(self._releases)[number % 2])

    async def _start_api(self, port: int, release: str = "") -> None:
        release = release or self._rng.choice(list(self._releases))
        self.started[f"APIs of {release}"] += 1
        words = ("api", "--port", str(port))
        path = self._releases[release]
        self._apis[port] = await self._stage.start(*words, python_path=path, VIGIL_REDIS_URL=self._store.api_url)

    async def _start_worker(self, release: str = "") -> None:
        release = release or self._rng.choice(list(self._releases))
        self.started[f"workers of {release}"] += 1
        self._workers.append(await self._stage.worker(self._releases[release]))

    async def hurt(self, least: float, most: float) -> None:
        """Let something happen every few seconds until cancelled."""
        names = [name for name in FAULTS if self._door is not None or not name.startswith("archive")]
        while True:
            await asyncio.sleep(self._rng.uniform(least, most))
            name = self._rng.choices(names, [FAULTS[one] for one in names])[0]
            self._happening = asyncio.ensure_future(self._happen(name))
            await asyncio.shield(self._happening)  # a fault comes to its end even when no other follows

    async def _happen(self, name: str) -> None:
        self.happened[name] += 1
        kind, _, how = name.partition(" ")
        match kind:
            case "worker":
                await self._worker(how)
            case "API":
                port = self._rng.choice(self._api_ports)
                await (self._stage.kill if how == "killed" else self._stage.term)(self._apis[port])
                await self._start_api(port)
            case "Redis":
                await self._redis(how)
            case _:
                await self._archive(how)

    async def _worker(self, how: str) -> None:
        victim = self._workers.pop(self._rng.randrange(len(self._workers)))
        if how.startswith("frozen"):
            victim.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self._stage.lease * 1.5)
            victim.send_signal(signal.SIGCONT)
            self._workers.append(victim)
            return
        await (self._stage.kill if how == "killed" else self._stage.term)(victim)
        await self._start_worker()

    async def _redis(self, how: str) -> None:
        pid = self._store.pid
        if pid is None:
            return
        if how == "frozen":
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(self._rng.uniform(0.5, 4))
            os.kill(pid, signal.SIGCONT)
            return
        os.kill(pid, signal.SIGKILL)
        await self._store.stop()
        await asyncio.sleep(self._rng.uniform(0, 2))
        await self._store.start()

    async def _archive(self, how: str) -> None:
        if self._door is None:
            return
        if how == "frozen":
            await self._door.silence(self._rng.uniform(1, 15))
            return
        await self._door.shut()
        await asyncio.sleep(self._rng.uniform(1, 15))
        await self._door.open()

    async def recovered(self) -> None:
        """Let the last fault come to its end."""
        if self._happening is not None:
            await self._happening

    async def leave(self) -> None:
        """Ask every process to go, as at the end of a working day."""
        await asyncio.gather(*(self._stage.term(one) for one in (*self._workers, *self._apis.values())))
