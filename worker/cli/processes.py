"""`vigil api`, `vigil worker` and `vigil simulator`, and what long-running commands share: the event loop and signals.

The first signal stops a process gracefully, the second at once. SIGHUP makes API and worker read their models file
anew, unless it says that the terminal has gone.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol, cast

import typer

from worker.cli.errors import EXIT_INTERRUPTED, EXIT_USAGE, CliError
from worker.embedded import EmbeddedValkey
from worker.models_file import reload_models
from worker.private_files import UMASK, make_private
from worker.settings import Settings
from worker.settings_files import check_files
from worker.settings_loader import load
from worker.telemetry.events import emit
from worker.telemetry.log import configure
from worker.telemetry.setup import stop_telemetry

_STARTUP_S = 1.0
_ALL_INTERFACES: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared with, not listened on
_SWITCH_INTERVAL_S: Final = 0.0005
_GC_THRESHOLD = 50_000  # allocations


class ApiServer(Protocol):
    """The type of `api.server.serve`, which is imported by name: `worker` must not import `api`."""

    def __call__(
        self,
        settings: Settings,
        redis: object | None = None,
        *,
        ready: asyncio.Event | None = None,
        stop: asyncio.Event | None = None,
        sock: socket.socket | None = None,
    ) -> Awaitable[None]:
        """Serve until `stop` is set."""
        ...


def load_api_server() -> ApiServer:
    """Import and return `api.server.serve`."""
    return cast("ApiServer", importlib.import_module("api.server").serve)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        return cast("Callable[[], asyncio.AbstractEventLoop]", importlib.import_module("uvloop").new_event_loop)
    except ImportError:
        return None


def run_until_signal(  # noqa: C901  what a signal does depends on the terminal
    work: Callable[[asyncio.Event], Awaitable[int | None]],
    message: str = "",
    on_hangup: Callable[[], None] | None = None,
) -> None:
    """Run `work(stop)`. The first signal sets `stop` and prints `message`, a second one exits at once.

    `on_hangup` is called for a SIGHUP, which then stops nothing unless the process has lost its terminal.
    Exits with 130 after SIGINT, 0 after another signal, else with what `work` returned.
    """
    received: list[int] = []

    async def go() -> int:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.call_later(_STARTUP_S, _tune_interpreter)

        had_terminal, ignored = _has_terminal(), signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # by nohup

        def on_signal(number: int) -> None:
            if number == signal.SIGHUP and on_hangup is not None and (ignored or not had_terminal or _has_terminal()):
                on_hangup()
                return
            if received:
                os._exit(EXIT_INTERRUPTED)
            received.append(number)
            stop.set()
            if message:
                try:
                    print(f"\n{message}", file=sys.stderr, flush=True)
                except OSError:  # the terminal or the reader of the pipe has gone: stop without the message
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

        signals = [signal.SIGINT, signal.SIGTERM]
        if on_hangup is not None or not ignored:
            signals.append(signal.SIGHUP)
        for number in signals:
            loop.add_signal_handler(number, on_signal, number)
        return await work(stop) or 0

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(go())
    finally:
        stop_telemetry()
    if received and received[0] == signal.SIGINT:
        code = EXIT_INTERRUPTED
    if code:
        raise typer.Exit(code)


def _has_terminal() -> bool:
    """Return whether the process has a terminal that controls it; not after that terminal was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _tune_interpreter() -> None:
    """Set the interpreter up for a loop that shares it with threads and keeps many objects.

    The objects made at start are excluded from garbage collection: scanning them takes a fifth of a submit's CPU. A
    thread that works on a large body gives the interpreter to the loop after half a millisecond; by Python's default
    after five, which every turn of the loop waited for.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 50)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


def listen(host: str, port: int) -> socket.socket:
    """Open and return a listening socket; port 0 takes a free one. Raise CliError if the port is not available.

    It listens at once: two processes that only bind may both succeed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError:
        raise CliError(f"{host!r} is no address of this machine", EXIT_USAGE) from None
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
        place.listen()
    except OSError as error:
        place.close()
        if error.errno == errno.EADDRINUSE:
            raise CliError(f"port {port} on {host} is taken; choose another with --port") from None
        raise CliError(f"can't listen on {host} port {port}: {error.strerror}", EXIT_USAGE) from None
    return place


def write_privately(settings: Settings) -> None:
    """Keep what this process writes, and what its data folder holds, for this user. Raises SettingsError for files of
    the settings that can't be used.
    """
    os.umask(UMASK)
    check_files(settings)
    if settings.data_dir.is_dir():
        with suppress(OSError):
            make_private(settings.data_dir)


def check_port(host: str, port: int) -> None:
    """CliError when the port can't be listened on, before anything is started."""
    if port:
        listen(host, port).close()


def address(settings: Settings) -> str:
    """Return the URL of the API for this machine."""
    host = _ALL_INTERFACES.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


@asynccontextmanager
async def with_redis(settings: Settings) -> AsyncIterator[Settings]:
    """Settings whose Redis runs: the one they name, or the embedded one of the data folder, started if need be."""
    if settings.redis_url is not None:
        yield settings
        return
    async with EmbeddedValkey(settings.data_dir) as embedded:
        yield settings.model_copy(update={"redis_url": embedded.url})


Host = Annotated[
    str | None, typer.Option(help="The address to listen on.  [VIGIL_HOST, 127.0.0.1]", show_default=False)
]


def api(
    host: Host = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="The port.  [VIGIL_PORT, 8700]", show_default=False)
    ] = None,
) -> None:
    """Run the HTTP API. SIGHUP makes it read the models file anew."""
    given = {"host": host, "port": port}
    settings = load({name: value for name, value in given.items() if value is not None})
    write_privately(settings)
    check_port(settings.host, settings.port)

    configure(settings.log_level, settings.log_format)

    async def work(stop: asyncio.Event) -> None:
        ready = asyncio.Event()

        async def report_ready() -> None:
            await ready.wait()
            emit("api.ready", host=settings.host, port=settings.port)

        async with with_redis(settings) as actual:
            reporting = asyncio.create_task(report_ready())
            try:
                await load_api_server()(actual, ready=ready, stop=stop)
            finally:
                reporting.cancel()

    run_until_signal(work, "stopping: no new requests are accepted, open ones are answered", reload_models)


def worker(
    max_jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs running at once.  [VIGIL_MAX_JOBS, 200]", show_default=False)
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="The address for --port.  [VIGIL_WORKER_HOST, 127.0.0.1]", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            help="Serve /healthz, /readyz and /metrics on this port; 0 = off.  [VIGIL_WORKER_PORT, 0]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a worker. The first signal drains it.

    Running jobs get VIGIL_DRAIN_SECONDS to finish; then another worker continues them. A second signal stops at once.
    SIGHUP makes it read the models file anew.
    """
    given = {"max_jobs": max_jobs, "worker_host": host, "worker_port": port}
    settings = load({name: value for name, value in given.items() if value is not None})
    write_privately(settings)
    check_port(settings.worker_host, settings.worker_port)
    configure(settings.log_level, settings.log_format)

    async def work(stop: asyncio.Event) -> None:
        main = importlib.import_module("worker.main")  # slow to import: only this command needs it
        async with with_redis(settings) as actual:
            await main.run_worker(actual, stop=stop)

    message = f"draining: running jobs have {settings.drain_seconds:g} s; a second signal stops at once"
    run_until_signal(work, message if settings.log_format == "console" else "", reload_models)


def simulator(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")] = 8790,
    speed: Annotated[float, typer.Option(help="Divide every wait by this.")] = 1.0,
    mix: Annotated[Path | None, typer.Option(help="A file with a weighted table of scenarios, for load tests.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same scenarios.")] = None,
    webhook_url: Annotated[str | None, typer.Option(help="The URL that receives the fake provider's webhooks.")] = None,
    webhook_secret: Annotated[str | None, typer.Option(help="The secret that signs these webhooks, whsec_….")] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A public name by which clients call it; may be given more than once.")
    ] = None,
    rpm: Annotated[int, typer.Option(min=0, help="Calls a minute for each key and model; 0 = any number.")] = 0,
    tpm: Annotated[int, typer.Option(min=0, help="Tokens a minute for each key and model; 0 = any number.")] = 0,
    log_format: Annotated[
        Literal["console", "json"], typer.Option(envvar="VIGIL_LOG_FORMAT", help="How it says that it is ready.")
    ] = "console",
) -> None:
    """Run the fake provider. `[[sim: list]]` as a prompt answers with its scenarios."""
    check_port(host, port)

    async def work(stop: asyncio.Event) -> None:
        from worker.simulator.app import Simulator  # noqa: PLC0415  aiohttp is slow to import

        try:
            simulator = Simulator(
                *(host, port, speed, mix, seed, webhook_url, webhook_secret),
                allowed_hosts=allowed_host or (),
                rpm=rpm,
                tpm=tpm,
            )
        except (ValueError, OSError) as error:
            raise CliError(f"the simulator can't start: {error}", EXIT_USAGE) from None
        async with simulator:
            if log_format == "json":
                configure("INFO", log_format)
                emit("simulator.ready", host=host, port=simulator.port)
            else:
                print(f"simulator on {simulator.url}; scenarios at {simulator.root}/sim/scenarios", flush=True)
            await stop.wait()

    run_until_signal(work)


async def first_of(*tasks: asyncio.Task[None], also: asyncio.Event) -> None:
    """Return when `also` is set or a task has ended. Raise what a task raised."""
    waiting = asyncio.ensure_future(also.wait())
    try:
        done, _ = await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    for task in done:
        if task is not waiting:
            task.result()


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(api)
    app.command()(worker)
    app.command()(simulator)
