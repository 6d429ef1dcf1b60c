"""Webhooks out, judged by the SDK's own verification."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import openai
import pytest
from aiohttp import web
from openai import AsyncOpenAI, OpenAI

from worker.simulator import Simulator

Until = Callable[[Callable[[], bool]], Awaitable[None]]

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@dataclass
class Receiver:
    """An endpoint that keeps what it got."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A running receiver."""
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hooks/openai", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/openai"
    yield made
    await runner.cleanup()


@pytest.fixture
async def hooked(receiver: Receiver) -> AsyncIterator[Simulator]:
    """A simulator that tells the receiver."""
    async with Simulator(speed=1000, webhook_url=receiver.url, webhook_secret=SECRET) as sim:
        yield sim


def unwrap(headers: dict[str, str], body: bytes) -> object:
    """Return the event as the SDK reads it."""
    with OpenAI(api_key="k", webhook_secret=SECRET) as client:
        return client.webhooks.unwrap(body, headers)


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [("normal", "response.completed"), ("bio_block", "response.failed"), ("content_filter", "response.incomplete")],
)
async def test_a_background_response_tells_its_end(
    hooked: Simulator, receiver: Receiver, until: Until, scenario: str, kind: str
) -> None:
    async with AsyncOpenAI(api_key="k", base_url=hooked.url, max_retries=0) as client:
        made = await client.responses.create(model="gpt-5.6-sol", input=f"[[sim: {scenario}]]", background=True)
        await client.responses.create(model="gpt-5.6-sol", input="foreground tells nothing")
        await until(lambda: bool(receiver.got))
    event = unwrap(*receiver.got[0])
    assert (event.type, event.data.id) == (kind, made.id)
    assert len(receiver.got) == 1


async def test_a_cancel_is_told(hooked: Simulator, receiver: Receiver, until: Until) -> None:
    async with AsyncOpenAI(api_key="k", base_url=hooked.url, max_retries=0) as client:
        made = await client.responses.create(model="gpt-5.6-sol", input="[[sim: queued_forever]]", background=True)
        await client.responses.cancel(made.id)
        await client.responses.cancel(made.id)
        await until(lambda: bool(receiver.got))
    assert unwrap(*receiver.got[0]).type == "response.cancelled"
    assert len(receiver.got) == 1


async def emit(sim: Simulator, variant: str, kind: str = "safety_identifier.blocked") -> dict[str, object]:
    """Ask for an event by hand."""
    body = {"type": kind, "data": {"safety_identifier": "u_1", "safety_category": "cyber"}, "variant": variant}
    async with aiohttp.ClientSession() as session, session.post(f"{sim.root}/sim/webhooks", json=body) as answer:
        emitted: dict[str, object] = await answer.json()
        return emitted


async def test_good_variants_are_accepted(hooked: Simulator, receiver: Receiver) -> None:
    for variant in ("plain", "duplicate", "two_signatures", "unknown_type"):
        assert (await emit(hooked, variant))["deliveries"]
    for headers, body in receiver.got:
        unwrap(headers, body)
    assert receiver.got[1] == receiver.got[2]
    assert [json.loads(body)["type"] for _, body in receiver.got][-1] == "response.something_new"


@pytest.mark.parametrize(
    ("variant", "error"),
    [
        ("old_stamp", openai.InvalidWebhookSignatureError),
        ("wrong_signature", openai.InvalidWebhookSignatureError),
        ("reserialised", openai.InvalidWebhookSignatureError),
        ("missing_header", ValueError),
        ("non_ascii_signature", (TypeError, ValueError)),
    ],
)
async def test_bad_variants_are_refused(
    hooked: Simulator, receiver: Receiver, variant: str, error: type[Exception]
) -> None:
    await emit(hooked, variant)
    with pytest.raises(error):
        unwrap(*receiver.got[0])


async def test_a_failing_receiver_is_tried_again(hooked: Simulator, receiver: Receiver) -> None:
    receiver.status = 503
    emitted = await emit(hooked, "plain")
    assert len(receiver.got) == 3
    assert emitted["deliveries"][0]["status"] == 503  # type: ignore[index]
    assert "error" in await emit(hooked, "no_such_variant")


async def test_a_url_needs_a_secret() -> None:
    with pytest.raises(ValueError, match="secret"):
        Simulator(webhook_url="http://127.0.0.1:1/x")
