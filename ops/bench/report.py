"""What the benches share: processes that end with them, one HTTP connection at the price of a callback, percentiles,
the CPU of a process, and one way to report. Knows nothing of what is measured.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import uvloop
from pydantic import SecretStr

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.store.apps import Apps
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring

HOST = "127.0.0.1"
VIGIL = Path(sys.executable).with_name("vigil")
_READY_SECONDS = 30.0
_STOP_SECONDS = 8.0
_TICKS = os.sysconf("SC_CLK_TCK")
_ACCEPTED, _REFUSED = 200, 300


# -- figures


@dataclass(frozen=True)
class Figure:
    """One number of the summary; `met` is None where there is no target."""

    name: str
    value: float
    unit: str
    target: str = ""
    met: bool | None = None

    @classmethod
    def at_most(cls, name: str, value: float, limit: float, unit: str) -> Figure:
        """A number that should not be above `limit`."""
        return cls(name, value, unit, f"<= {limit:g}", value <= limit)

    @classmethod
    def at_least(cls, name: str, value: float, limit: float, unit: str) -> Figure:
        """A number that should not be below `limit`."""
        return cls(name, value, unit, f">= {limit:g}", value >= limit)

    def line(self) -> str:
        """For the summary."""
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return f"{self.name:<58} {self.value:10.2f} {self.unit:<8} {self.target:<9} {verdict}".rstrip()


@dataclass
class Report:
    """What a bench has to say: lines for a person, figures for a program."""

    bench: str
    lines: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add an aligned table; floats get one digit."""
        text = [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in (head, *rows)]
        widths = [max(len(row[i]) for row in text) for i in range(len(head))]
        for row in text:
            cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            self.lines.append("  ".join(cells).rstrip())

    def show(self, *, as_json: bool) -> None:
        """Print it."""
        if as_json:
            print(json.dumps(asdict(self), indent=2))
            return
        print("\n".join([*self.lines, "", *(figure.line() for figure in self.figures)]))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> tuple[float, float, float, float, float]:
    """(least, p50, p90, p99, greatest)."""
    return min(values), percentile(values, 0.5), percentile(values, 0.9), percentile(values, 0.99), max(values)


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used, all threads, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


# -- running


def run(main: Coroutine[Any, Any, Report], *, seconds: float) -> Report:
    """The report of `main`; SIGTERM, Ctrl-C and the end of the time unwind it, so that nothing it started stays."""

    async def go() -> Report:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with asyncio.timeout(seconds):
            return await main

    try:
        return uvloop.run(go())
    except TimeoutError:
        sys.exit(f"gave up after {seconds:g} s")
    except (asyncio.CancelledError, KeyboardInterrupt):
        sys.exit(130)


def free_port() -> int:
    """A port of the loopback that is free at this moment."""
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        return int(trial.getsockname()[1])


class Deployment:
    """A folder, Valkeys and processes of our own; everything is gone when the block ends."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._processes: list[asyncio.subprocess.Process] = []
        self.folder = Path()

    async def __aenter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="vigil-bench-")))
        self._stack.push_async_callback(self._end)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def valkey(self, name: str) -> EmbeddedValkey:
        """A Valkey as Vigil ships it: append-only file, flushed before each answer. No rewrite in mid-measurement."""
        server = await self._stack.enter_async_context(EmbeddedValkey(self.folder / name))
        client = connect(server.url, max_connections=1)
        try:
            await client.config_set("auto-aof-rewrite-percentage", 0)
            found = await client.config_get("appendfsync")
        finally:
            await client.aclose()
        if found != {"appendfsync": "always"}:
            raise RuntimeError(f"the embedded Valkey flushes {found}")
        return server

    async def start(
        self, *words: str | Path, env: Mapping[str, str] | None = None, piped: bool = False
    ) -> asyncio.subprocess.Process:
        """A process in our folder, with nothing of our surroundings that could change it; logs go to a file."""
        inherited = os.environ  # noqa: TID251  a child needs the rest of it
        clean = {k: v for k, v in inherited.items() if not k.startswith(("VIGIL_", "OPENAI_", "SENTRY_"))}
        with (self.folder / f"process-{len(self._processes)}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *map(str, words),
                env={**clean, **(env or {})},
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if piped else log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def logs(self) -> str:
        """The last lines of every process."""
        files = sorted(self.folder.glob("process-*.log"))
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in files)

    async def until(self, what: str, true: Callable[[], Awaitable[bool]]) -> None:
        """Returns once `true`; says what a process wrote when it does not happen."""
        end = time.monotonic() + _READY_SECONDS
        while time.monotonic() < end:
            with suppress(OSError):
                if await true():
                    return
            if any(process.returncode is not None for process in self._processes):
                break
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{what} did not happen\n{self.logs()}")

    async def _end(self) -> None:
        for process in reversed(self._processes):  # each by its own id
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()
        for process in self._processes:
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


async def new_key(url: str, master: str = "") -> str:
    """A fresh API key in this Redis, written with this master key."""
    keyring = MasterKeyring.from_settings([SecretStr(master)]) if master else None
    redis = connect(url, max_connections=1, keyring=keyring)
    try:
        _, key, _ = await Apps(redis, Clock()).create_key("bench", ("submit", "read"))
    finally:
        await redis.aclose()
    return key


async def answers(port: int, path: str) -> bool:
    """True when GET `path` gives a 2xx; OSError while nobody listens."""
    line = await Line.open(port)
    try:
        status, _ = await line.ask(get(path))
    finally:
        line.close()
    return _ACCEPTED <= status < _REFUSED


# -- HTTP


def get(path: str, key: str = "") -> bytes:
    """A request as bytes, ready to be written."""
    return f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {key}\r\n\r\n".encode()


def post(path: str, body: dict[str, Any], key: str = "") -> bytes:
    """A request as bytes, ready to be written."""
    raw = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


Then = Callable[["Line", int, bytes], None]


class Line(asyncio.Protocol):
    """One keep-alive connection with one request at a time; answers carry a Content-Length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._got = b""
        self._then: Then | None = None

    @classmethod
    async def open(cls, port: int) -> Line:
        """A connection to the loopback; OSError when nobody listens."""
        _, line = await asyncio.get_running_loop().create_connection(cls, HOST, port)
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, then: Then) -> None:
        """Write the request; `then(line, status, body)` once the answer is whole, status 0 when the line broke."""
        self._then = then
        if self._transport is None or self._transport.is_closing():
            self.connection_lost(None)
        else:
            self._transport.write(request)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """(status, body) of one request."""
        done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def then(_: Line, status: int, body: bytes) -> None:
            if not done.done():
                done.set_result((status, body))

        self.send(request, then)
        return await done

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hand on a whole answer."""
        got = self._got = self._got + data if self._got else data
        head = got.find(b"\r\n\r\n")
        if head < 0:
            return
        at = got.find(b"content-length:", 0, head)
        if at < 0:
            at = got.lower().find(b"content-length:", 0, head)
        end = head + 4 + (int(got[at + 15 : got.index(b"\r", at)]) if at >= 0 else 0)
        if len(got) < end:
            return
        self._got = b""
        then, self._then = self._then, None
        if then is not None:
            then(self, int(got[9:12]), got[head + 4 : end])

    def connection_lost(self, _: Exception | None) -> None:
        """Tell whoever waits."""
        self._transport = None
        then, self._then = self._then, None
        if then is not None:
            then(self, 0, b"")
