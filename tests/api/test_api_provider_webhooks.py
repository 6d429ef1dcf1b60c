"""POST /hooks/openai: what the provider signed is stored once, all else is refused, and no webhook settles a job."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from api_server import running, submitted
from openai import OpenAI
from raw_client import RawClient
from standardwebhooks.webhooks import Webhook
from waiting import LIMIT

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.jobs import events as ev
from worker.settings import Settings
from worker.simulator import Simulator
from worker.store.connection.pool import connect
from worker.store.provider.safety_notices import SafetyNotices

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def settings(valkey_url, tmp_path):
    return Settings(
        _env_file=None,
        redis_url=valkey_url,
        data_dir=tmp_path,
        max_body_bytes=64 * 1024,
        OPENAI_WEBHOOK_SECRET=SECRET,
    )


@pytest.fixture
async def outside(api):
    """A client without a key, as the provider is one."""
    async with httpx2.AsyncClient(base_url=api.base_url, timeout=LIMIT, trust_env=False) as client:
        yield client


@pytest.fixture
def kept(redis):
    return SafetyNotices(redis, 1000)


def event(kind="safety_identifier.blocked", **data: Any) -> dict[str, Any]:
    data = data or {"safety_category": "cyber", "safety_identifier": "u_1"}
    return {"object": "event", "id": "evt_1", "type": kind, "created_at": 1_790_000_000, "data": data}


def signed(body: bytes, name="wh_1", at: datetime | None = None, secret=SECRET) -> dict[str, str]:
    at = at or Clock().now()
    signature = Webhook(secret).sign(msg_id=name, timestamp=at, data=body.decode())
    return {
        "webhook-id": name,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
        "content-type": "application/json",
    }


async def send(client, what, **how):
    body = json.dumps(what).encode() if not isinstance(what, bytes) else what
    return await client.post("/hooks/openai", content=body, headers=signed(body, **how))


def refused(answer, code, status=400):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return True


async def test_a_signed_event_is_stored_once_however_often_it_is_delivered(outside, kept):
    first, again = await send(outside, event()), await send(outside, event())
    other_delivery = await send(outside, event(), name="wh_2")
    assert [a.status_code for a in (first, again, other_delivery)] == [200, 200, 200]
    assert [a.json()["duplicate"] for a in (first, again, other_delivery)] == [False, True, True]
    assert [notice.safety_identifier for notice in await kept.since(0)] == ["u_1"]
    assert (await kept.webhook_counts())["safety_identifier.blocked"] == 2  # two webhooks told of one event


async def test_an_unknown_type_is_taken_and_counted_without_being_kept(outside, kept):
    for number in range(3):
        assert (await send(outside, event(f"future.thing_{number}", id="x"), name=f"wh_{number}")).status_code == 200
    assert await kept.webhook_counts() == {"other": 3}
    assert await kept.since(0) == []


async def test_every_other_signature_is_refused_and_nothing_is_kept(outside, kept):
    body, now = json.dumps(event()).encode(), Clock().now()
    good = signed(body)
    bad = {
        "old": signed(body, at=now - timedelta(seconds=302)),
        "future": signed(body, at=now + timedelta(seconds=302)),
        "another secret": signed(body, secret="whsec_" + base64.b64encode(b"x" * 32).decode()),
        "another id": {**good, "webhook-id": "wh_2"},
        "another stamp": {**good, "webhook-timestamp": str(int(now.timestamp()) - 1)},
        "no words": {**good, "webhook-signature": "v1,"},
        "not a stamp": {**good, "webhook-timestamp": "yesterday"},
        **{f"no {name}": {k: v for k, v in good.items() if k != name} for name in list(good)[:3]},
    }
    for why, headers in bad.items():
        assert refused(await outside.post("/hooks/openai", content=body, headers=headers), "invalid_signature"), why
    raw = [(k.encode(), v.encode()) for k, v in good.items() if k != "webhook-signature"]
    strange = [*raw, (b"webhook-signature", "v1,sígnätüré".encode())]
    twice = [*raw, (b"webhook-signature", good["webhook-signature"].encode())] * 2
    for headers in (strange, twice):
        assert refused(await outside.post("/hooks/openai", content=body, headers=headers), "invalid_signature")
    assert refused(await outside.post("/hooks/openai", content=body + b" ", headers=good), "invalid_signature")
    assert await kept.webhook_counts() == {}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'{"type": 7}', b'{"type": "a b"}', b'{"type":"x","type":"y"}', b'"x"']
)
async def test_a_signed_body_that_is_no_event_is_400(outside, body):
    answer = await send(outside, body)
    assert answer.status_code == 400
    assert answer.json()["code"] in {"malformed_event", "malformed_json", "duplicate_key"}


async def test_bytes_that_are_no_text_are_400(outside):
    assert refused(await outside.post("/hooks/openai", content=b"\xff\xfe", headers=signed(b"{}")), "invalid_signature")


async def test_a_body_beyond_the_limit_is_413(outside):
    assert refused(await send(outside, event(padding="x" * 70_000)), "body_too_large", 413)


async def test_without_a_secret_the_route_is_closed(valkey_url, redis, tmp_path):
    settings = Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path)
    async with running(settings, redis, Clock()) as api, httpx2.AsyncClient(trust_env=False) as client:
        body = b"{}"
        answer = await client.post(f"{api.base_url}/hooks/openai", content=body, headers=signed(body))
    assert refused(answer, "webhooks_not_configured", 404)


async def test_while_redis_is_away_the_provider_gets_a_503(tmp_path):
    async with EmbeddedValkey(tmp_path / "v") as own:
        settings = Settings(_env_file=None, redis_url=own.url, data_dir=tmp_path, OPENAI_WEBHOOK_SECRET=SECRET)
        redis = connect(own.url)
        async with (
            running(settings, None, Clock(), keys_in=redis) as api,
            httpx2.AsyncClient(base_url=api.base_url, trust_env=False, timeout=LIMIT) as client,
        ):
            await own.stop()
            assert refused(await send(client, event()), "store_unavailable", 503)
            await own.start()
            answer = await send(client, event())
            assert (answer.status_code, answer.json()["duplicate"]) == (200, False)
        await redis.aclose()


async def test_the_simulators_webhooks_are_taken_by_us_and_by_the_sdk(api, kept):
    url = f"{api.base_url}/hooks/openai"
    async with Simulator(speed=1000, webhook_url=url, webhook_secret=SECRET) as sim:
        expected = {
            "plain": 200,
            "duplicate": 200,
            "two_signatures": 200,
            "unknown_type": 200,
            "old_stamp": 400,
            "wrong_signature": 400,
            "non_ascii_signature": 400,
            "missing_header": 400,
            "reserialised": 400,
        }
        for variant, status in expected.items():
            sent = await sim.world.webhooks.emit("safety_identifier.blocked", {"safety_identifier": "u_1"}, variant)
            assert {delivery["status"] for delivery in sent} == {status}, variant
        body, headers = sim.world.webhooks._request(event(), "plain", int(Clock().now().timestamp()))
    with OpenAI(api_key="k", webhook_secret=SECRET) as client:
        assert client.webhooks.unwrap(body, headers).type == "safety_identifier.blocked"
    assert len(await kept.since(0)) == 3


async def test_an_end_reported_by_the_provider_settles_nothing(outside, acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.commit(job_id, (ev.AttemptUpdated(response_id="resp_1"), 1))
    answer = await send(outside, event("response.completed", id="resp_1"))
    assert answer.status_code == 200
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["status"] == "running"


async def test_the_webhook_needs_no_key_and_a_key_does_not_help(api, acme):
    assert refused(await acme.post("/hooks/openai", json=event()), "invalid_signature")


HEAD = b"POST /hooks/openai HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"


def half(headers: dict[str, str], length: int = 100) -> bytes:
    """A request whose body never comes."""
    return HEAD % length + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode() + b"\r\n"


def named(**changes: str | None) -> dict[str, str]:
    """Headers of a signed request, with changes; None leaves one out."""
    headers = {name: value for name, value in signed(b"{}").items() if name.startswith("webhook-")}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in headers.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_id": None},
        {"webhook_signature": None},
        {"webhook_timestamp": None},
        {"webhook_timestamp": "soon"},
        {"webhook_timestamp": "1000"},
        {"webhook_timestamp": "9" * 12},
        {"webhook_signature": "v1,abc"},
        {"webhook_signature": "v2," + "A" * 43 + "="},
    ],
)
async def test_what_no_body_could_make_authentic_is_refused_by_its_head(api, changes):
    client = await RawClient(api).send(half(named(**changes)))
    assert b" 400 " in (got := await client.until(b"\r\n\r\n"))
    assert b"100 Continue" not in got
    client.close()


async def test_without_a_secret_nothing_is_read(settings, redis, clock):
    async with running(settings.model_copy(update={"openai_webhook_secret": None}), redis, clock) as api:
        client = await RawClient(api).send(half(named() | {"Expect": "100-continue"}, 1_000_000))
        assert b" 404 " in (got := await client.until(b"\r\n\r\n"))
        assert b"100 Continue" not in got
        client.close()


async def test_its_bodies_are_small(settings, redis, clock):
    async with running(settings.model_copy(update={"max_body_bytes": 2**20}), redis, clock) as api:
        client = await RawClient(api).send(half(named(), 64 * 1024 + 1))
        assert b" 413 " in await client.until(b"\r\n\r\n")
        client.close()


async def test_half_requests_shut_out_nobody(api, outside):
    clients = [await RawClient(api).send(half(named(), 60_000) + b"{") for _ in range(70)]
    assert (await send(outside, event())).json() == {"received": True, "duplicate": False}
    assert b" 408 " in await clients[0].until(b"\r\n\r\n"), "the oldest gave way"
    for client in clients:
        client.close()
    slow = await RawClient(api).send(half(named(), 60_000) + b"{")
    async with asyncio.timeout(LIMIT):
        assert b" 408 " in await slow.rest()
    slow.close()
