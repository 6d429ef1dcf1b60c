"""Runs the API with uvicorn inside a running event loop, without signal handlers and without exiting the process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from api.app import create_app
from api.runtime.store_setup import check_stores, open_stores
from api.web.uvicorn_protocol import protocol_factory
from worker.clock import Clock
from worker.settings import Settings
from worker.store.connection.pool import Redis

_GRACE_S = 3
_KEEP_ALIVE_S = 30
_ACCEPTED_AT_ONCE = 16
"""uvloop takes one new connection of a socket in a turn of the loop: many that come at once would make others wait for
seconds. So it listens on duplicates of the socket.
"""
_VANISHED_MS = 60_000
"""How long a client may leave sent bytes unacknowledged."""


class _Server(uvicorn.Server):
    """A uvicorn server that installs no signal handlers, and sets `listening` once it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address; port 0 takes a free port, see `getsockname()`. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # of the connections too: a client that vanished is gone in a minute
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _VANISHED_MS)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.set_inheritable(False)
    return sock


async def serve(
    settings: Settings,
    redis: Redis | None = None,
    *,
    ready: asyncio.Event | None = None,
    stop: asyncio.Event | None = None,
    sock: socket.socket | None = None,
    clock: Clock | None = None,
) -> None:
    """Serve until `stop` is set or the task is cancelled; set `ready` once requests are accepted.

    `sock`: a socket from `bind`, for callers who need to know the port before; else settings.host and settings.port.
    Without a Redis client it opens the one of the settings, raises UnsafeStore if that Redis could lose accepted jobs,
    and closes it at the end.
    """
    sock, clock = sock or bind(settings.host, settings.port), clock or Clock()
    http = protocol_factory(settings, clock)
    try:
        if redis is not None:
            await _run(create_app(settings, redis, clock), http, sock, ready, stop)
            return
        stores = open_stores(settings)
        try:
            await check_stores(stores)
            await _run(create_app(settings, clock=clock, stores=stores), http, sock, ready, stop)
        finally:
            for one in stores:
                await one.redis.aclose()
    finally:
        sock.close()


async def _run(
    app: Starlette,
    http: type[asyncio.Protocol],
    sock: socket.socket,
    ready: asyncio.Event | None,
    stop: asyncio.Event | None,
) -> None:
    config = uvicorn.Config(
        app,
        loop="none",
        http=http,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # forwarded.py reads them
        timeout_graceful_shutdown=_GRACE_S,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    server = _Server(config)
    listening = [sock, *(sock.dup() for _ in range(_ACCEPTED_AT_ONCE - 1))]
    serving = asyncio.create_task(server.serve(sockets=listening), name="vigil-api")
    watching = asyncio.create_task(_watch(server, ready, stop))
    try:
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        for context in app.state.partitions.all:
            context.broadcaster.close_watchers()  # long polls and streams end now, not after the grace period
        server.should_exit = True
        await serving


async def _watch(server: _Server, ready: asyncio.Event | None, stop: asyncio.Event | None) -> None:
    """Set `ready` once the server listens, then wait for `stop`."""
    await server.listening.wait()
    if ready is not None:
        ready.set()
    await (stop or asyncio.Event()).wait()
