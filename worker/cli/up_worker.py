"""The worker of `vigil up`, with the simulator if there is one, in a process of their own.

What they do takes the interpreter for itself: in the API's process a burst of jobs would delay every request, until the
API took Redis for dead. The process gets its settings through stdin and ends when that is closed, and with its parent
in any case. It reports through stdout, one JSON object a line: `simulator` (its URL), `ready`, `error` with `code`.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import importlib
import json
import os
import pickle
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast

import typer
from pydantic import SecretStr

from worker.cli.errors import EXIT_USAGE, CliError, explain, wants_traceback
from worker.cli.processes import address, run_until_signal
from worker.settings import Settings
from worker.telemetry.log import configure

_WITH_SIMULATOR: Final = "simulator"
_PR_SET_PDEATHSIG: Final = 1
_ENDED: Final = "the worker's process ended by itself; its log says why"


class SeparateWorker:
    """The process, as its parent sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)

    async def begin(self, settings: Settings, speed: float | None) -> str | None:
        """Send the settings; return the URL of the simulator once it runs, None without one (`speed` None)."""
        self._stdin.write(pickle.dumps((settings, speed)))
        with suppress(ConnectionError):  # it has ended: its report says why
            await self._stdin.drain()
        return None if speed is None else str((await self._report())["simulator"])

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Set `ready` once it works; return when it has ended after `stop`. Raises CliError if it ends before."""
        stopping = asyncio.create_task(self._close_after(stop))
        try:
            if await self._report(may_end=True):
                ready.set()
                await self._report(may_end=True)
            code = await self._process.wait()
            if not stop.is_set() or code:
                raise CliError(_ENDED)
        finally:
            stopping.cancel()

    async def end(self) -> None:
        """Stop the process, and return when it has ended."""
        self._stdin.close()
        await self._process.wait()

    async def _close_after(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stdin.close()

    async def _report(self, *, may_end: bool = False) -> dict[str, Any]:
        """Return the next report. Raises CliError for an error, and for the end unless that may come."""
        line = await self._stdout.readline()
        report: dict[str, Any] = json.loads(line) if line else {}
        if "error" in report:
            await self._process.wait()
            raise CliError(report["error"], EXIT_USAGE if report["code"] == EXIT_USAGE else 1)
        if not report and not may_end:
            raise CliError(_ENDED)
        return report


@asynccontextmanager
async def separate_worker(*, with_simulator: bool) -> AsyncIterator[SeparateWorker]:
    """Start the process, which loads what it needs while it waits for its settings; it has ended behind the block."""
    words = [_WITH_SIMULATOR] if with_simulator else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "worker.cli.up_worker", str(os.getpid()), *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the parent, which drains first
    )
    worker = SeparateWorker(process)
    try:
        yield worker
    finally:
        await worker.end()


# -- in the process


def main() -> int:
    """Run the worker until stdin is closed; return the exit code."""
    parent, with_simulator = int(sys.argv[1]), _WITH_SIMULATOR in sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    importlib.import_module("worker.main")
    if with_simulator:
        importlib.import_module("worker.simulator.app")
    try:
        settings, speed = pickle.load(sys.stdin.buffer)  # noqa: S301  from our parent alone
    except EOFError:
        return 0
    configure(settings.log_level, settings.log_format)
    try:
        run_until_signal(lambda stop: _work(settings, speed, stop))
    except typer.Exit as end:
        return end.exit_code
    return 0


async def _work(settings: Settings, speed: float | None, stop: asyncio.Event) -> int:
    ending = asyncio.create_task(_stop_with_stdin(stop))
    try:
        if speed is None:
            await _run_worker(settings, stop)
            return 0
        async with simulator(settings, speed) as url:
            _tell(simulator=url)
            await _run_worker(with_provider(settings, url), stop)
    except Exception as error:  # noqa: BLE001  the parent tells
        if wants_traceback():
            traceback.print_exc()
        line, code = explain(error)
        _tell(error=line, code=code)
        return code
    finally:
        ending.cancel()
    return 0


async def _run_worker(settings: Settings, stop: asyncio.Event) -> None:
    ready = asyncio.Event()

    async def report() -> None:
        await ready.wait()
        _tell(ready=True)

    reporting = asyncio.create_task(report())
    try:
        await importlib.import_module("worker.main").run_worker(settings, stop=stop, ready=ready)
    finally:
        reporting.cancel()


async def _stop_with_stdin(stop: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stop.set()


def _tell(**report: Any) -> None:
    with suppress(OSError):  # nobody listens any more
        print(json.dumps(report), flush=True)


def with_provider(settings: Settings, simulator_url: str) -> Settings:
    """Return the settings with the simulator as provider."""
    return settings.model_copy(update={"openai_api_key": SecretStr("sk-simulator"), "openai_base_url": simulator_url})


@asynccontextmanager
async def simulator(settings: Settings, speed: float) -> AsyncIterator[str]:
    """The fake provider on its usual port, or on a free one; yields the base URL for the SDK."""
    from worker.simulator.app import DEFAULT_PORT, Simulator  # noqa: PLC0415  aiohttp is slow to import

    hooks: tuple[str | None, str | None] = None, None
    if settings.openai_webhook_secret is not None:
        hooks = f"{address(settings)}/hooks/openai", settings.openai_webhook_secret.get_secret_value()
    provider = Simulator("127.0.0.1", DEFAULT_PORT, speed, webhook_url=hooks[0], webhook_secret=hooks[1])
    try:
        await provider.start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        provider.port = 0
        await provider.start()
    try:
        yield provider.url
    finally:
        await provider.stop()


if __name__ == "__main__":
    sys.exit(main())
