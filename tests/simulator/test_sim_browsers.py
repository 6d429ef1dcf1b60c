"""A web page in somebody's browser must not be able to use the simulator, whatever it may send without asking."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from worker.simulator import Simulator
from worker.simulator.browser_guard import refusal

EVENT = '{"type": "response.completed", "data": {}, "url": "%s"}'
CHANGES = [
    *(("POST", path) for path in ("/sim/webhooks", "/sim/denied", "/sim/speed", "/sim/reset", "/v1/responses")),
    *(("POST", path) for path in ("/v1/chat/completions", "/v1/responses/resp_x/cancel")),
    ("DELETE", "/v1/responses/resp_x"),
]
PAGES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://[::1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Host": "evil.example"},
    {"Host": "evil.example:8790", "Origin": "http://evil.example:8790", "Sec-Fetch-Site": "same-origin"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost.evil.example."},
]


async def send(sim: Simulator, method: str, path: str, headers: dict[str, str], body: str = "{}") -> int:
    given = {"Authorization": "Bearer k", "Content-Type": "application/json", **headers}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, sim.root + path, headers=given, data=body) as answer,
    ):
        text = await answer.text()
        assert answer.status < 400 or '"message"' in text
        return answer.status


@pytest.mark.parametrize("page", PAGES, ids=[str(number) for number in range(len(PAGES))])
async def test_no_page_can_change_anything(sim: Simulator, page: dict[str, str]) -> None:
    for method, path in CHANGES:
        assert await send(sim, method, path, page) == 403, (method, path)
    assert sim.calls()["calls"] == []


async def test_a_public_name_reads_nothing_either_unless_it_is_allowed() -> None:
    async with Simulator(allowed_hosts=["Sim.example"]) as sim:
        assert await send(sim, "GET", "/sim/calls", {"Host": "evil.example"}) == 403
        assert await send(sim, "POST", "/sim/reset", {"Host": "sim.example", "Origin": "http://sim.example"}) == 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8790",
        "[::1]:8790",
        "localhost",
        "simulator:8790",
        "sim.vigil.svc",
        "host.docker.internal",
        "10.1.2.3",
    ],
)
def test_the_names_that_a_deployment_gives_it_are_its_own(host: str) -> None:
    assert refusal("POST", {"Host": host}, ()) is None
    own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert refusal("POST", own, ()) is None


@pytest.mark.parametrize("path", ["/sim/webhooks", "/sim/denied", "/sim/speed", "/sim/reset"])
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
async def test_bodies_are_json_by_their_content_type(sim: Simulator, path: str, kind: str) -> None:
    assert await send(sim, "POST", path, {"Content-Type": kind}) == 415


async def test_webhooks_are_sent_to_this_machine_alone(sim: Simulator) -> None:
    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response()

    got: list[object] = []
    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    for url in (f"http://127.0.0.1:{port}/", f"http://localhost:{port}/"):
        assert await send(sim, "POST", "/sim/webhooks", {}, EVENT % url) == 200
    assert len(got) == 2
    for host in ("example.com", "169.254.169.254", "10.0.0.1", "0.0.0.0", "2130706433", "127.1", "0x7f.1", "[::]"):  # noqa: S104
        assert await send(sim, "POST", "/sim/webhooks", {}, EVENT % f"http://{host}:{port}/") == 400, host
    for url in (
        f"http://127.0.0.1@example.com:{port}/",
        "file:///etc/passwd",
        "http://[::1",
        "http://localhost.evil.com/",
    ):
        assert await send(sim, "POST", "/sim/webhooks", {}, EVENT % url) == 400, url
    assert len(got) == 2
    await runner.cleanup()
