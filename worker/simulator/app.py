"""Serves the simulator: `Simulator` to embed it, `run` to serve until cancelled.

It assembles routes and state; it must not know what any of them does.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from . import chat, control, relayed, responses
from .answers import guard
from .mix import Mix, MixTable, load
from .pace import Pace
from .rates import Rates
from .webhooks import Webhooks
from .world import DENIED, WORLD, World

DEFAULT_PORT = 8790
_BODY_LIMIT = 64 * 1024 * 1024
_BACKLOG = 2048


class Simulator:
    """A fake provider on a socket of its own: `async with Simulator(speed=1000) as sim: ... sim.url`."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        mix: str | Path | MixTable | None = None,
        seed: int | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        denied: frozenset[str] = DENIED,
        allowed_hosts: Iterable[str] = (),
        rpm: int = 0,
        tpm: int = 0,
    ) -> None:
        """Check the arguments (ValueError); `port=0` takes a free one, `speed` divides every wait.

        `allowed_hosts`: public names by which it is called, beside addresses and private names. `rpm`, `tpm`: calls
        and tokens a minute for each key, project and model, 0 = any number.
        """
        pace = Pace(speed)
        if webhook_url and not webhook_secret:
            raise ValueError("a webhook URL needs a webhook secret")
        table = load(mix) if isinstance(mix, (str, Path)) else mix
        drawn = Mix(table, seed) if table is not None else None
        hooks = Webhooks(webhook_url, webhook_secret, pace)
        self.host, self.port = host, port
        allowed = frozenset(name.lower() for name in (host, *allowed_hosts))
        rates = Rates(rpm, tpm)
        self.world = World(pace=pace, mix=drawn, webhooks=hooks, denied=denied, rates=rates, allowed_hosts=allowed)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Return the base URL for an SDK, `http://HOST:PORT/v1`."""
        return f"{self.root}/v1"

    @property
    def root(self) -> str:
        """Return the URL without /v1, for the pages under /sim."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def calls(self) -> dict[str, Any]:
        """Return what GET /sim/calls answers."""
        return self.world.ledger.as_json()

    def deny(self, *models: str) -> None:
        """Do what POST /sim/denied does."""
        self.world.denied = frozenset(models)

    def set_speed(self, speed: float) -> None:
        """Do what POST /sim/speed does; ValueError when it is no number above 0."""
        self.world.pace.change(speed)

    def set_rates(self, rpm: int = 0, tpm: int = 0, used: float = 0.0) -> None:
        """Do what POST /sim/rates does; ValueError for a number out of range."""
        self.world.rates.change(rpm, tpm, used)

    def reset(self) -> None:
        """Do what POST /sim/reset does."""
        self.world.reset()

    async def start(self) -> Self:
        """Listen; `port` is the real one when this returns. OSError when the port is taken."""
        runner = web.AppRunner(
            _application(self.world),
            access_log=None,
            handler_cancellation=True,  # a foreground response stops when its client leaves
            shutdown_timeout=0.05,
            keepalive_timeout=60.0,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port, backlog=_BACKLOG).start()
        except OSError:
            await runner.cleanup()
            raise
        self.port = int(runner.addresses[0][1])
        self._runner = runner
        return self

    async def stop(self) -> None:
        """Break all connections and stop; may be started again on the same port."""
        runner, self._runner = self._runner, None
        await self.world.close()
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        """Start."""
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()


async def run(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    speed: float = 1.0,
    mix: str | Path | None = None,
    seed: int | None = None,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
) -> None:
    """Serve until cancelled. ValueError for bad arguments, OSError for a taken port."""
    _raise_file_limit()
    simulator = Simulator(host, port, speed, mix, seed, webhook_url, webhook_secret)
    async with simulator:
        await asyncio.Event().wait()


def _application(world: World) -> web.Application:
    app = web.Application(middlewares=[guard], client_max_size=_BODY_LIMIT)
    app[WORLD] = world
    app.add_routes(
        [
            web.post("/v1/responses", responses.create),
            web.post("/v1/responses/input_tokens", relayed.count),
            web.post("/v1/responses/compact", relayed.compact),
            web.get("/v1/responses/{id}", responses.retrieve),
            web.post("/v1/responses/{id}/cancel", responses.cancel),
            web.delete("/v1/responses/{id}", responses.delete),
            web.post("/v1/chat/completions", chat.create),
            web.get("/v1/models", control.models),
            web.get("/v1/models/{id}", control.model),
            web.get("/v1/safety/cases/{id}", control.safety_page),
            web.get("/v1/safety/alerts/{id}", control.safety_page),
            web.get("/sim/calls", control.calls),
            web.get("/sim/scenarios", control.scenarios),
            web.get("/sim/options", control.options),
            web.get("/sim/healthz", control.healthz),
            web.post("/sim/reset", control.reset),
            web.post("/sim/speed", control.speed),
            web.post("/sim/rates", control.rates),
            web.post("/sim/webhooks", control.webhook),
            web.post("/sim/denied", control.denied),
        ]
    )
    return app


def _raise_file_limit() -> None:
    """Allow as many sockets as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
