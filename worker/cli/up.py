"""`vigil up`: runs Redis, API, worker and simulator. The demo uses it too.

The API is in this process; worker and simulator share another one (up_worker.py), Redis is a third.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Final

import typer
from pydantic import SecretStr

from worker.cli.console import console_link
from worker.cli.errors import CliError
from worker.cli.keys import new_encryption_key, place_app
from worker.cli.partitions import open_stores
from worker.cli.processes import address, first_of, listen, load_api_server, run_until_signal, with_redis
from worker.cli.profile import save_profile, saved_profile
from worker.cli.submit import DEFAULT_MODEL
from worker.cli.up_worker import separate_worker, with_provider
from worker.clock import Clock, to_ms
from worker.jobs.catalogue import Catalogue
from worker.private_files import UMASK, make_private
from worker.settings import Settings
from worker.settings_files import check_files
from worker.settings_loader import key_file, load
from worker.store.apps import SCOPES, Apps
from worker.store.audit.acts import Actor
from worker.store.audit.record_notes import BY_VIGIL
from worker.store.connection.durability import check_durability, describe_durability
from worker.telemetry.log import configure
from worker.webhooks.signing import new_secret

_LOCAL_APP: Final = "local"
_READY_TIMEOUT_S: Final = 60.0
_EXPOSED: Final = (
    "warning: other machines can reach this Vigil, over plain HTTP: whoever is on the way can read keys and prompts. "
    "Without --host (VIGIL_HOST) only this machine can; behind a proxy with TLS (ops/proxy) others can safely."
)


@dataclass(frozen=True, slots=True)
class Running:
    """A running Vigil: its URL, key, provider and tasks."""

    url: str
    key: str
    provider: str
    durability: str
    simulator: str | None
    outside: str | None  # the URL for other machines, if they reach it
    encrypted: bool
    console: str | None  # a link that logs in once
    tasks: tuple[asyncio.Task[None], ...]


@asynccontextmanager
async def everything(settings: Settings, stop: asyncio.Event, *, speed: float = 1.0) -> AsyncIterator[Running]:
    """Run Redis, worker, API, and the simulator unless there is a provider's key or address.

    Leaving the block sets `stop`: API and worker drain first, then the simulator and Redis stop.
    """
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(
            listen(settings.host, settings.port)
        )  # first: of two processes only the one that has the port starts
        bound = ip_address(sock.getsockname()[0])
        place: dict[str, object] = {"port": int(sock.getsockname()[1])}
        if bound.is_unspecified:  # however it was written
            place["host"] = str(bound)
        settings = with_encryption_key(settings.model_copy(update=place))
        simulated = settings.openai_api_key is None and settings.openai_base_url is None
        worker = await stack.enter_async_context(separate_worker(with_simulator=simulated))
        actual = await stack.enter_async_context(with_redis(settings))
        stack.push_async_callback(worker.end)  # before Redis
        durability_text = await _check_store(actual)
        if simulated and actual.openai_webhook_secret is None:  # Vigil runs both ends: webhooks need no setup
            actual = actual.model_copy(
                update={"openai_webhook_secret": SecretStr(new_secret(Clock().random_bytes(32)))}
            )
        elif actual.openai_api_key is None and not simulated:
            actual = actual.model_copy(update={"openai_api_key": SecretStr("none")})  # a server that needs no key
        simulator = await worker.begin(actual, speed if simulated else None)
        if simulator is not None:
            actual = with_provider(actual, simulator)
        ready = asyncio.Event(), asyncio.Event()
        tasks = (
            asyncio.create_task(worker.run(ready[0], stop), name="worker"),
            asyncio.create_task(_serve_api(actual, ready[1], stop, sock), name="api"),
        )
        try:
            await _until_ready(tasks, ready, stop)
            key = await _key(actual)
            yield Running(
                address(actual),
                key,
                _provider(actual, settings),
                durability_text,
                simulator,
                outside_url(bound, settings.port),
                bool(actual.encryption_keys),
                await _console_link(actual, key) if actual.console else None,
                tasks,
            )
        finally:
            stop.set()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException):
                raise error


def with_encryption_key(settings: Settings) -> Settings:
    """Return the settings with an encryption key; without one, make one and keep it in the data folder.

    With an external Redis the settings stay as they are.
    """
    if settings.encryption_keys or settings.redis_url is not None:
        return settings
    make_private(settings.data_dir)
    path = key_file(settings.data_dir)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(new_encryption_key() + "\n")
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):  # another process started in this folder at the same time: its key is used
        os.link(fresh, path)
    fresh.unlink()
    return settings.model_copy(update={"encryption_keys": (SecretStr(path.read_text(encoding="ascii").strip()),)})


def outside_url(bound: IPv4Address | IPv6Address, port: int) -> str | None:
    """Return the URL under which other machines reach what listens on this address; None if none can."""
    mapped = bound.ipv4_mapped if isinstance(bound, IPv6Address) else None
    if (mapped or bound).is_loopback:
        return None
    host = str(bound)
    if bound.is_unspecified:
        found = _own_address(socket.AF_INET, "192.0.2.1")
        if found is None and isinstance(bound, IPv6Address):
            found = _own_address(socket.AF_INET6, "2001:db8::1")
        host = found or socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _own_address(family: socket.AddressFamily, target: str) -> str | None:
    """Return the address from which this machine would call the target; nothing is sent."""
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((target, 9))
        found = str(probe.getsockname()[0])
        return None if ip_address(found).is_loopback else found
    return None


def _provider(actual: Settings, given: Settings) -> str:
    """Describe where the jobs are sent, and how."""
    base = actual.openai_base_url or "the provider's own address"
    mode = {"background": "", "stream": ", foreground streams", "chat": ", Chat Completions"}[actual.upstream]
    return f"{base}{mode}" + (", without a key (OPENAI_API_KEY)" if given.openai_api_key is None else "")


async def _serve_api(settings: Settings, ready: asyncio.Event, stop: asyncio.Event, sock: socket.socket) -> None:
    await load_api_server()(settings, ready=ready, stop=stop, sock=sock)


async def _until_ready(
    tasks: tuple[asyncio.Task[None], ...], ready: tuple[asyncio.Event, ...], stop: asyncio.Event
) -> None:
    both = asyncio.Event()

    async def watch() -> None:
        for one in ready:
            await one.wait()
        both.set()

    watcher, stopper = asyncio.create_task(watch()), asyncio.create_task(stop.wait())
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            await asyncio.wait({*tasks, watcher, stopper}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise CliError("API or worker did not get ready within a minute; `vigil doctor` shows more") from None
    finally:
        watcher.cancel()
        stopper.cancel()
        await asyncio.gather(watcher, stopper, return_exceptions=True)
    for task in tasks:
        if task.done():
            task.result()
            if not stop.is_set():
                raise CliError(f"the {task.get_name()} ended before it was ready")


async def _check_store(settings: Settings) -> str:
    async with open_stores(settings, writes=True) as stores:
        checked = [await check_durability(one.redis, allow_eviction=settings.allow_eviction) for one in stores]
    return describe_durability(checked[0])


async def _key(settings: Settings) -> str:
    """Return a valid key of the app "local": the one saved in the data folder, or a new one that is saved there."""
    async with open_stores(settings, writes=False) as stores:
        store = await place_app(settings, stores, _LOCAL_APP)
        apps = Apps(store.redis, Clock(), Actor(BY_VIGIL, via="cli"))
        left = saved_profile(settings.data_dir)
        key = left.key.get_secret_value() if left and left.key else None
        record = await apps.find(key) if key else None
        is_live = record is not None and record.is_live(to_ms(Clock().now()))
        if key is None or record is None or not is_live or record.app != _LOCAL_APP:
            _, key, _ = await apps.create_key(_LOCAL_APP, SCOPES)
    make_private(settings.data_dir)
    save_profile(settings.data_dir, address(settings), key)
    return key


async def _console_link(settings: Settings, key: str) -> str | None:
    """Return a link that logs into the console once, as this key."""
    async with open_stores(settings, writes=False) as stores:
        store = await place_app(settings, stores, _LOCAL_APP)
        return await console_link(store.redis, key, address(settings) + settings.root_path)


def up(
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="The API's port; 0 takes a free one.  [VIGIL_PORT, 8700]")
    ] = None,
    host: Annotated[str | None, typer.Option(help="The API's address.  [VIGIL_HOST, 127.0.0.1]")] = None,
    speed: Annotated[float, typer.Option(help="Divide every wait of the simulator by this.")] = 1.0,
) -> None:
    """Start everything on this machine.

    That is an embedded Valkey (unless VIGIL_REDIS_URL is set), API, worker, and the simulator if neither OPENAI_API_KEY
    nor OPENAI_BASE_URL is set. Prints the URL, an API key and a line to try. Ctrl-C drains and stops.
    """
    given = {"port": port, "host": host}
    settings = load({name: value for name, value in given.items() if value is not None})
    if speed <= 0 or speed == float("inf") or speed != speed:  # noqa: PLR0124  nan
        raise CliError("--speed is a number above 0", 2)
    os.umask(UMASK)  # whatever is written from here on is this user's alone
    check_files(settings)
    with suppress(OSError):  # with a Redis of its own it may do without, until there is something to write
        make_private(settings.data_dir)
    if "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "WARNING"})  # a person reads this terminal
    configure(settings.log_level, settings.log_format)

    async def work(stop: asyncio.Event) -> None:
        async with everything(settings, stop, speed=speed) as running:
            if not stop.is_set():
                _print_running(settings, running)
                await first_of(*running.tasks, also=stop)

    run_until_signal(work, f"draining: running jobs have {settings.drain_seconds:g} s; Ctrl-C again stops at once")


def _print_running(settings: Settings, running: Running) -> None:
    data = "the Redis of VIGIL_REDIS_URL" if settings.redis_url else settings.data_dir
    provider = (
        f"simulator on {running.simulator}; set OPENAI_API_KEY for the real one, OPENAI_BASE_URL for another"
        if running.simulator
        else running.provider
    )
    model = example_model(settings.catalogue())
    directive = "[[sim: check_then_clear hold=5]] " if running.simulator else ""
    chosen = "" if model == DEFAULT_MODEL else f" --model {shlex.quote(model)}"
    console = f"  console   {running.console}   (logs in once, within ten minutes)\n" if running.console else ""
    outside = ""
    if running.outside is not None:
        outside = f"\n  outside   {running.outside}   (for other machines)"
        print(_EXPOSED, file=sys.stderr, flush=True)
    print(
        f"""Vigil answers on {running.url}   (docs: {running.url}/docs){outside}
{console}  key       {running.key}
  provider  {provider}
  data      {data}, {"encrypted" if running.encrypted else "NOT encrypted: set VIGIL_ENCRYPTION_KEYS"}
  {running.durability}

Try it:
  curl -s {running.url}/v1/jobs -H 'Authorization: Bearer {running.key}' \\
    -H 'Content-Type: application/json' -H 'Prefer: wait=30' \\
    -d {shlex.quote(json.dumps({"model": model, "input": f"{directive}Why is the sky blue?"}))}
or, in this folder:
  vigil submit --wait{chosen} 'Why is the sky blue?'{_check_hint(running, model)}

Ctrl-C drains and stops.""",
        flush=True,
    )


def _check_hint(running: Running, model: str) -> str:
    """Return how to check, before the first job, whether a provider fits; "" for the simulator."""
    if running.simulator:
        return ""
    return f"""
Does this provider fit?
  vigil probe; vigil doctor; vigil doctor --try {shlex.quote(model)}   # the last sends one small request"""


def example_model(catalogue: Catalogue) -> str:
    """Return a model of the catalogue: the default of `vigil submit`, or the first if it is not in the catalogue."""
    return DEFAULT_MODEL if catalogue.find(DEFAULT_MODEL) else next(iter(catalogue.models))


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(up)
