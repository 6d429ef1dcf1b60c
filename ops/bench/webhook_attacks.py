"""What one app's webhooks do to another app's: attacks by name servers, slow receivers and many URLs.

    python ops/bench/webhook_attacks.py [--deliveries 30] [--only NAME] [--json]

Each attack is a function by which one app does its worst and which returns what that app gets. Another app's webhooks
are timed meanwhile, from the submit to the arrival, against the same on a quiet worker. Delivery, Redis and receivers
are real and on the loopback. `ATTACKS` and `measure_attack` are for other benches.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web
from arq.connections import ArqRedis
from report import HOST, Deployment, Figure, Report, percentile, run

from worker.clock import Clock
from worker.jobs import events as ev
from worker.settings import Settings
from worker.store.apps import Apps
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob
from worker.store.webhooks.endpoints import Endpoints
from worker.tasks.delivery.dispatcher import Dispatcher
from worker.webhooks.guard import AddressPolicy
from worker.webhooks.name_lookup import CaresLookup
from worker.webhooks.resolver import SystemResolver
from worker.webhooks.sender import WebhookSender
from worker.webhooks.signing import new_secret

ALLOWED_RATIO: Final = 2.0
_MODEL: Final = "gpt-5.6-sol"
_WARMING_S: Final = 1.0
"""How long an attack runs before the other app's webhooks are timed."""


class Receiver:
    """A webhook receiver that answers with `status`, or never if it is None; it notes when requests came."""

    def __init__(self, status: int | None = 200) -> None:
        self.status, self.times = status, list[float]()
        self.arrived, self._closing = asyncio.Event(), asyncio.Event()

    async def _handle(self, request: web.Request) -> web.Response:
        await request.read()
        self.times.append(time.perf_counter())
        self.arrived.set()
        if self.status is None:
            await self._closing.wait()
        return web.Response(status=self.status or 500)

    async def __aenter__(self) -> Self:
        """Listen."""
        app = web.Application()
        app.router.add_post("/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, 0, backlog=1024).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        self._closing.set()
        await self._runner.cleanup()


@dataclass
class Stage:
    """A Redis and a worker's delivery, whose name server never answers: only /etc/hosts is known."""

    redis: ArqRedis
    stack: AsyncExitStack
    clock: Clock = field(default_factory=Clock)

    async def start(self) -> None:
        """Run the delivery; it ends with the stack."""
        silent = self.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind((HOST, 0))
        self.jobs, self.endpoints = Jobs(self.redis, self.clock), Endpoints(self.redis, self.clock)
        for app in ("attacker", "other"):
            await Apps(self.redis, self.clock).create_key(app, ("submit",))
        settings = Settings(_env_file=None, webhook_allow_private=True)  # type: ignore[call-arg]
        resolver = SystemResolver(CaresLookup(servers=[f"{HOST}:{silent.getsockname()[1]}"]))
        sender = WebhookSender(AddressPolicy.of(settings), resolver, self.clock)
        running = asyncio.create_task(Dispatcher(self.redis, self.clock, settings, "bench", sender=sender).run())

        async def stop() -> None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            resolver.close()

        self.stack.push_async_callback(stop)

    async def receiver(self, status: int | None = 200) -> Receiver:
        """Return a receiver that ends with the deployment."""
        return await self.stack.enter_async_context(Receiver(status))

    async def submit(self, app: str, url: str = "") -> str:
        """Submit a job of the app, with a webhook of its own if there is a URL."""
        events = ("job.queued",) if url else ()
        fact = ev.Queued(app=app, key_id="key_bench", requested_model=_MODEL, webhook_events=events)
        hook = {"url": url, "payload": "thin", "events": list(events)} if url else None
        stored, _ = await self.jobs.submit(NewJob(fact, {"metadata": {}, "webhook": hook}, {"input": "x"}))
        return stored.job.id

    async def endpoint(self, url: str) -> None:
        """Give the attacker a standing endpoint for every event."""
        await self.endpoints.create(
            "attacker",
            url=url,
            events=tuple(ev.FACTS),
            payload="thin",
            description="",
            secret=new_secret(self.clock.random_bytes(32)),
        )

    async def latencies(self, receiver: Receiver, count: int) -> list[float]:
        """Return how long the other app's webhooks take, one after another, in milliseconds."""
        found = []
        for _ in range(count):
            receiver.arrived.clear()
            began = time.perf_counter()
            await self.submit("other", f"http://localhost:{receiver.port}/hook")
            await receiver.arrived.wait()
            found.append((receiver.times[-1] - began) * 1000)
        return found


Attack = Callable[[Stage], Awaitable[Callable[[], str]]]
"""Begins an attack; returns what says in the end what the attacker got."""


async def hostile_name_servers(stage: Stage) -> Callable[[], str]:
    """Send 400 webhooks to names that no server answers for, in four domains under one public suffix."""
    for number in range(400):
        await stage.submit("attacker", f"http://n{number}.evil{number % 4}.co.uk/")
    return lambda: "no answer for 400 names"


async def one_address(stage: Stage) -> Callable[[], str]:
    """Point 50 endpoints with all 26 events at one address that acknowledges nothing, and submit."""
    victim = await stage.receiver(500)
    for number in range(50):
        await stage.endpoint(f"http://{HOST}:{victim.port}/{number}")
    for _ in range(4):
        await stage.submit("attacker")
    began = time.perf_counter()

    def outcome() -> str:
        seconds = time.perf_counter() - began
        return f"{len(victim.times)} POSTs at the address in {seconds:.1f} s (200 wanted)"

    return outcome


async def slow_receivers(stage: Stage) -> Callable[[], str]:
    """Send 600 webhooks to thirty receivers that accept and never answer."""
    pits = [await stage.receiver(None) for _ in range(30)]
    for number in range(600):
        await stage.submit("attacker", f"http://{HOST}:{pits[number % 30].port}/{number}")
    return lambda: f"{sum(len(pit.times) for pit in pits)} connections held or cut after 15 s"


async def many_targets(stage: Stage) -> Callable[[], str]:
    """Send 5,000 webhooks to 5,000 ports where nobody listens: each is a receiver of its own."""
    for number in range(0, 5_000, 100):
        await asyncio.gather(
            *(stage.submit("attacker", f"http://127.0.0.9:{10_000 + number + i}/") for i in range(100))
        )
    return lambda: "5,000 receivers in line"


ATTACKS: Final[dict[str, Attack]] = {
    one.__name__: one for one in (hostile_name_servers, one_address, slow_receivers, many_targets)
}


@dataclass(frozen=True)
class AttackResult:
    """What an attacker got, and what another app's webhooks took, in milliseconds."""

    attack: str
    attacker: str
    quiet: list[float]
    attacked: list[float]

    @property
    def ratio(self) -> float:
        """Return the p99 under attack by that of the quiet worker."""
        return percentile(self.attacked, 0.99) / percentile(self.quiet, 0.99)


async def measure_attack(name: str, deliveries: int) -> AttackResult:
    """Run one attack on a deployment of its own."""
    async with Deployment() as deployment, AsyncExitStack() as stack:
        server = await deployment.valkey("valkey")
        redis = connect(server.url)
        stack.push_async_callback(redis.aclose)
        stage = Stage(redis, stack)
        await stage.start()
        receiver = await stage.receiver()
        await stage.latencies(receiver, 5)  # warm
        quiet = await stage.latencies(receiver, deliveries)
        outcome = await ATTACKS[name](stage)
        await asyncio.sleep(_WARMING_S)
        attacked = await stage.latencies(receiver, deliveries)
        return AttackResult(name, outcome(), quiet, attacked)


async def measure(given: argparse.Namespace) -> Report:
    """Run the attacks one after another."""
    report, rows = Report("webhook_attacks"), list[tuple[object, ...]]()
    for name in [given.only] if given.only else ATTACKS:
        one = await measure_attack(name, given.deliveries)
        halves = [percentile(values, share) for values in (one.quiet, one.attacked) for share in (0.5, 0.99)]
        rows.append((name, one.attacker, *halves))
        report.figures.append(Figure.at_most(f"p99 under {name} / quiet", one.ratio, ALLOWED_RATIO, "times"))
    report.table(("attack", "the attacker gets", "quiet p50", "p99", "attacked p50", "p99, ms"), rows)
    return report


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--deliveries", type=int, default=30, help="webhooks of the other app that are timed, each time"
    )
    parser.add_argument("--only", choices=sorted(ATTACKS), help="one attack")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    run(measure(given), seconds=280).show(as_json=given.json)


if __name__ == "__main__":
    main()
