"""Real processes to kill: workers, an API, a Valkey of their own. Only what was started here is ever signalled."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Self

from in_process import until

from worker.embedded import EmbeddedValkey
from worker.simulator import Simulator
from worker.store.connection.pool import connect

VIGIL = Path(sys.executable).with_name("vigil")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Processes:
    """Starts and ends processes; everything is gone when the block ends."""

    def __init__(self, folder: Path, *, speed: float = 1.0, lease: float = 2.0, **settings: str) -> None:
        self.folder, self.lease = folder, lease
        self.valkey = EmbeddedValkey(folder / "data")
        self.sim = Simulator(speed=speed)
        self.redis = connect(self.valkey.url)
        self._settings = settings
        self._running: list[asyncio.subprocess.Process] = []
        self._logs = 0

    async def __aenter__(self) -> Self:
        await self.valkey.start()
        await self.sim.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in list(self._running):
            await self.kill(process)
        await self.redis.aclose()
        await self.sim.stop()
        await self.valkey.stop()

    def env(self) -> dict[str, str]:
        environment = os.environ  # noqa: TID251  a child needs the rest of it
        dropped = ("VIGIL_", "OPENAI_", "SENTRY_", "PYTHONDONTWRITEBYTECODE")  # the last: seconds for each start
        kept = {k: v for k, v in environment.items() if not k.startswith(dropped)}
        return {
            **kept,
            "VIGIL_REDIS_URL": self.valkey.url,
            "VIGIL_LEASE_SECONDS": str(self.lease),
            "VIGIL_LOG_FORMAT": "json",
            "OPENAI_API_KEY": "sk-chaos",
            "OPENAI_BASE_URL": self.sim.url,
            **self._settings,
        }

    def hurry(self) -> None:
        """Whatever the provider still waits for or writes comes at once."""
        self.sim.set_speed(1e6)

    async def start(self, *words: str, python_path: str = "", **settings: str) -> asyncio.subprocess.Process:
        """A `vigil …` process, of the packages in `python_path` if given, perhaps with settings of its own.

        Its log goes to a file of its own.
        """
        self._logs += 1
        more = {"PYTHONPATH": python_path} if python_path else {}
        with (self.folder / f"{words[0]}-{self._logs}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(VIGIL), *words, env=self.env() | more | settings, stdout=log, stderr=log, cwd=self.folder
            )
        self._running.append(process)
        return process

    async def worker(self, python_path: str = "") -> asyncio.subprocess.Process:
        """A worker that has shown its first heartbeat."""
        process = await self.start("worker", python_path=python_path)

        async def beats() -> bool:
            names = [name.decode() for name in await self.redis.hkeys("vigil:workers")]
            return any(f"-{process.pid}-" in name for name in names)

        await until("the worker's heartbeat", beats)
        return process

    async def kill(self, process: asyncio.subprocess.Process) -> None:
        """kill -9, also of a stopped process."""
        if process in self._running:
            self._running.remove(process)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()

    async def term(self, process: asyncio.subprocess.Process) -> int:
        """SIGTERM, and the exit code."""
        self._running.remove(process)
        process.send_signal(signal.SIGTERM)
        return await process.wait()

    def logs(self) -> str:
        """Everything that the processes wrote."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))
