"""Standing endpoints, deliveries and redelivery over HTTP; forbidden addresses are refused at submit."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta

import httpx2
import pytest
import typer
from api_server import running, submitted
from arq.connections import ArqRedis
from typer.testing import CliRunner

from api.app import create_app
from worker.cli import webhooks
from worker.clock import Clock
from worker.jobs.events import TERMINAL_FACTS
from worker.settings import Settings
from worker.store import keys
from worker.store.apps import SCOPES, Apps
from worker.store.webhooks.endpoints import MAX_ENDPOINTS, Endpoints

URL = "https://app.example/hooks"


class InProcessApi:
    """The API without a socket, and clients with keys."""

    def __init__(self, app, apps: Apps) -> None:
        self.app, self.apps = app, apps

    async def client(self, app: str = "acme", scopes: tuple[str, ...] = SCOPES) -> httpx2.AsyncClient:
        key = (await self.apps.create_key(app, scopes))[1]
        transport = httpx2.ASGITransport(app=self.app)
        headers = {"Authorization": f"Bearer {key}"}
        return httpx2.AsyncClient(transport=transport, base_url="http://vigil.test", headers=headers)


@pytest.fixture
def server(settings: Settings, redis: ArqRedis, clock: Clock) -> InProcessApi:
    return InProcessApi(create_app(settings, redis, clock), Apps(redis, clock))


@pytest.fixture
async def acme(server: InProcessApi) -> httpx2.AsyncClient:
    return await server.client()


async def made(client: httpx2.AsyncClient, **body) -> dict:
    answer = await client.post("/v1/webhook-endpoints", json={"url": URL, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_an_endpoint_is_made_and_its_secret_shown_once(acme):
    answer = await acme.post("/v1/webhook-endpoints", json={"url": URL})
    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/webhook-endpoints/{body['id']}"
    fails = {"failing_since", "failed_tries", "disables_at"}
    assert set(body) == {"id", "url", "events", "payload", "description", "state", "created_at", "secret", *fails}
    assert body["id"].startswith("we_")
    assert body["secret"].startswith("whsec_")
    assert body["events"] == [fact.TYPE for fact in TERMINAL_FACTS]
    assert (body["payload"], body["state"], body["created_at"][-1]) == ("thin", "active", "Z")
    shown = (await acme.get(f"/v1/webhook-endpoints/{body['id']}")).json()
    assert shown == {name: value for name, value in body.items() if name != "secret"}
    assert (await acme.get("/v1/webhook-endpoints")).json() == {"object": "list", "data": [shown], "next_cursor": None}


async def test_an_endpoint_is_changed_paused_and_deleted(acme, redis):
    name = (await made(acme))["id"]
    path = f"/v1/webhook-endpoints/{name}"
    changed = await acme.patch(path, json={"url": "https://other.example:8443/x", "events": ["job.queued"]})
    assert (changed.status_code, changed.json()["url"]) == (200, "https://other.example:8443/x")
    assert (changed.json()["events"], changed.json()["payload"]) == (["job.queued"], "thin")
    assert await redis.smembers(keys.endpoint_events("acme")) == {b"job.queued"}
    assert (await acme.patch(path, json={"state": "paused"})).json()["state"] == "paused"
    assert (await acme.patch(path, json={"state": "active", "payload": "full"})).json()["state"] == "active"
    gone = await acme.delete(path)
    assert (gone.status_code, gone.content) == (204, b"")
    for answer in (await acme.get(path), await acme.delete(path), await acme.patch(path, json={})):
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_endpoint_not_found")
    assert await redis.exists(keys.endpoint_events("acme")) == 0


async def test_rotation_shows_a_new_secret_and_keeps_two_live_for_a_day(acme, redis, clock):
    first = await made(acme)
    turned = await acme.post(f"/v1/webhook-endpoints/{first['id']}/rotate-secret")
    again = await acme.post(f"/v1/webhook-endpoints/{first['id']}/rotate-secret", json={})
    assert (turned.status_code, again.status_code) == (200, 200)
    secrets = [first["secret"], turned.json()["secret"], again.json()["secret"]]
    assert len(set(secrets)) == 3
    one = await Endpoints(redis, clock).find("acme", first["id"])
    now = int(clock.now().timestamp() * 1000)
    assert one.live_secrets(now) == [secrets[2], secrets[1]], "the oldest signs no more"
    assert one.live_secrets(now + 25 * 3600 * 1000) == [secrets[2]]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": 5}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": "http://app.example/"}, "/url"),
        ({"url": "https://127.0.0.1/"}, "/url"),
        ({"url": "https://localhost/"}, "/url"),
        ({"url": URL, "events": []}, "/events"),
        ({"url": URL, "events": ["job.done"]}, "/events/0"),
        ({"url": URL, "events": ["job.output.delta"]}, "/events/0"),
        ({"url": URL, "payload": "fat"}, "/payload"),
        ({"url": URL, "description": "a\nb"}, "/description"),
        ({"url": URL, "description": "x" * 257}, "/description"),
        ({"url": URL, "secret": "whsec_x"}, "/secret"),
        ({"url": URL, "state": "paused"}, "/state"),
    ],
    ids=str,
)
async def test_bad_fields_are_422_and_make_nothing(acme, redis, body, pointer):
    answer = await acme.post("/v1/webhook-endpoints", json=body)
    assert answer.status_code == 422
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]
    assert await redis.exists(keys.endpoints("acme")) == 0


@pytest.mark.parametrize(
    "body", [{"state": "gone"}, {"url": None}, {"events": []}, {"id": "we_1"}, {"url": "https://10.0.0.1/"}]
)
async def test_bad_changes_are_422_and_change_nothing(acme, body):
    before = await made(acme)
    answer = await acme.patch(f"/v1/webhook-endpoints/{before['id']}", json=body)
    assert answer.status_code == 422
    after = (await acme.get(f"/v1/webhook-endpoints/{before['id']}")).json()
    assert after == {name: value for name, value in before.items() if name != "secret"}


async def test_an_app_sees_and_touches_only_its_own_endpoints(server, acme):
    name = (await made(acme))["id"]
    rival = await server.client("rival")
    assert (await rival.get("/v1/webhook-endpoints")).json()["data"] == []
    for method, tail in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret")):
        answer = await rival.request(method, f"/v1/webhook-endpoints/{name}{tail}", json={})
        assert answer.status_code == 404, (method, tail)


async def test_scopes(server, acme):
    name = (await made(acme))["id"]
    job_id = await submitted(acme)
    reader, writer = await server.client(scopes=("read",)), await server.client(scopes=("submit",))
    for method, path in (
        ("GET", "/v1/webhook-endpoints"),
        ("POST", "/v1/webhook-endpoints"),
        ("GET", f"/v1/webhook-endpoints/{name}"),
        ("PATCH", f"/v1/webhook-endpoints/{name}"),
        ("DELETE", f"/v1/webhook-endpoints/{name}"),
        ("POST", f"/v1/webhook-endpoints/{name}/rotate-secret"),
        ("POST", f"/v1/jobs/{job_id}/deliveries/msg_1/redeliver"),
    ):
        assert (await reader.request(method, path, json={})).status_code == 403, (method, path)
    assert (await reader.get(f"/v1/jobs/{job_id}/deliveries")).status_code == 200
    assert (await writer.get(f"/v1/jobs/{job_id}/deliveries")).status_code == 403


async def test_an_app_has_at_most_fifty_endpoints(acme):
    for _ in range(MAX_ENDPOINTS):
        await made(acme)
    answer = await acme.post("/v1/webhook-endpoints", json={"url": URL})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_endpoints")


async def test_the_deliveries_of_a_job(acme, redis):
    job_id = await submitted(acme, webhook={"url": URL, "events": ["job.queued", "job.cancelled"]})
    await acme.post(f"/v1/jobs/{job_id}/cancel")
    body = (await acme.get(f"/v1/jobs/{job_id}/deliveries")).json()
    assert (body["object"], body["next_cursor"]) == ("list", None)
    assert [(m["type"], m["seq"], m["url"], m["state"]) for m in body["data"]] == [
        ("job.queued", 1, URL, "pending"),
        ("job.cancelled", 2, URL, "pending"),
    ]
    assert [m["deliveries"] for m in body["data"]] == [[], []]
    assert all(m["created_at"].endswith("Z") for m in body["data"])


async def test_redelivery_of_known_and_unknown_messages(server, acme):
    job_id = await submitted(acme, webhook={"url": URL, "events": ["job.queued"]})
    other = await submitted(acme)
    (message,) = (await acme.get(f"/v1/jobs/{job_id}/deliveries")).json()["data"]
    again = await acme.post(f"/v1/jobs/{job_id}/deliveries/{message['id']}/redeliver")
    assert (again.status_code, again.json()) == (202, message)
    for path in (f"{job_id}/deliveries/msg_nope", f"{other}/deliveries/{message['id']}", "job_x/deliveries/msg_1"):
        assert (await acme.post(f"/v1/jobs/{path}/redeliver")).status_code == 404, path
    rival = await server.client("rival")
    assert (await rival.post(f"/v1/jobs/{job_id}/deliveries/{message['id']}/redeliver")).status_code == 404


async def test_forbidden_addresses_are_refused_at_submit_with_the_reason(acme, redis):
    for url, code in (
        ("http://app.example/", "webhook_url_scheme"),
        ("https://2130706433/", "webhook_url_spelling"),
        ("https://169.254.169.254/", "webhook_url_ip_address"),
        ("https://app.example:22/", "webhook_url_port"),
        ("https://metadata.google.internal/", "webhook_url_private_host"),
    ):
        answer = await acme.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": "x", "webhook": {"url": url}})
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert answer.json()["errors"][0]["pointer"] == "/webhook/url"
    assert not await redis.keys("vigil:job:*")
    await submitted(acme, webhook={"url": "https://name.that.does.not.resolve.example/"})


async def test_the_document_knows_the_routes(acme):
    doc = (await acme.get("/openapi.json")).json()
    assert {"post", "get"} <= set(doc["paths"]["/v1/webhook-endpoints"])
    assert {"get", "patch", "delete"} <= set(doc["paths"]["/v1/webhook-endpoints/{endpoint_id}"])
    assert "/v1/jobs/{job_id}/deliveries/{message_id}/redeliver" in doc["paths"]
    assert "WebhookEndpointWithSecret" in doc["components"]["schemas"]


async def test_the_command_line_lists_redelivers_and_rotates(settings, redis, clock, monkeypatch):
    app = typer.Typer()
    webhooks.register(app)
    app.command("other")(lambda: None)  # typer makes a single command the root
    async with running(settings, redis, clock) as served:
        key = await served.key()
        client = await served.client(key=key)
        monkeypatch.setenv("VIGIL_URL", served.base_url)
        monkeypatch.setenv("VIGIL_API_KEY", key)

        async def vigil(*words: str, code: int = 0) -> str:
            result = await asyncio.to_thread(CliRunner().invoke, app, ["webhooks", *words])
            assert result.exit_code == code, result.output
            return result.stdout

        assert "no endpoints" in await vigil("list")
        first = await made(client)
        assert first["id"] in await vigil("list")
        assert json.loads(await vigil("list", "--json"))["data"][0]["url"] == URL
        turned = await vigil("rotate-secret", first["id"])
        assert turned.startswith("whsec_")
        assert first["secret"] not in turned
        job_id = await submitted(client, webhook={"url": URL, "events": ["job.queued"]})
        listed = await vigil("list", "--job", job_id)
        (message,) = (await client.get(f"/v1/jobs/{job_id}/deliveries")).json()["data"]
        assert message["id"] in listed
        assert "pending" in listed
        assert message["id"] in await vigil("redeliver", job_id, message["id"])
        assert message["id"] in await vigil("redeliver", job_id)
        quiet = await submitted(client)
        assert "no messages" in await vigil("list", "--job", quiet)
        assert "was delivered" in await vigil("redeliver", quiet)
        await vigil("redeliver", job_id, "msg_nope", code=1)


async def test_a_failing_endpoint_says_since_when_and_when_it_is_disabled(acme, redis, clock):
    made = (await acme.post("/v1/webhook-endpoints", json={"url": "https://app.example/hooks"})).json()
    assert (made["failing_since"], made["failed_tries"], made["disables_at"]) == (None, 0, None)
    since = clock.now() - timedelta(days=2)
    await redis.hset(keys.FAILING_ENDPOINTS, made["id"], f"{int(since.timestamp() * 1000)} 7 0")
    (shown,) = (await acme.get("/v1/webhook-endpoints")).json()["data"]
    assert shown["failed_tries"] == 7
    begun, ends = (datetime.fromisoformat(shown[name]) for name in ("failing_since", "disables_at"))
    assert ends - begun == timedelta(days=5)
    path = f"/v1/webhook-endpoints/{made['id']}"
    paused = (await acme.patch(path, json={"state": "paused"})).json()
    assert (paused["failed_tries"], paused["disables_at"]) == (7, None)
    active = (await acme.patch(path, json={"state": "active"})).json()
    assert (active["failing_since"], active["disables_at"]) == (None, None)
