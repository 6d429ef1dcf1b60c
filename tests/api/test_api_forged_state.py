"""Who can write to Redis, but has no encryption key: what they plant shows an app nothing of another's."""

from __future__ import annotations

import hashlib
import json

import pytest
from api_server import Worker, running, submitted

from worker.jobs import events as ev
from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.repository import Jobs

SOL = "gpt-5.6-sol"
SECRET = "the secret of the other app"
SDK = {"X-Stainless-Retry-Count": "0"}


@pytest.fixture
async def sealed(valkey_url):
    client = connect(valkey_url, keyring=MasterKeyring([b"k" * 32]))
    yield client
    await client.aclose()


@pytest.fixture
async def api(settings, sealed, clock):
    async with running(settings, sealed, clock, keys_in=sealed) as api:
        yield api


@pytest.fixture
async def other(api, sealed, clock):
    """A completed job of another app, whose content is the secret."""
    jobs, client = Jobs(sealed, clock), await api.client("other")
    worker = Worker(sealed, jobs, clock)
    job_id = await submitted(client, input=SECRET, metadata={"a": "b"})
    await worker.start(job_id)
    message = {
        "id": "msg_x",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": SECRET}],
    }
    finished = ev.AttemptFinished(outcome="completed", served_model=SOL), 1
    answer = {"output_text": SECRET, "output": [message], "refusal": None}
    await worker.commit(job_id, finished, (ev.Completed(served_model=SOL), 1), answer=answer)
    return job_id


def harmless(answer, *statuses):
    assert SECRET not in answer.text
    assert answer.status_code in statuses, (answer.status_code, answer.text[:500])


async def conversation(client):
    item = {"type": "message", "role": "user", "content": SECRET}
    return (await client.post("/v1/conversations", json={"items": [item]})).json()["id"]


@pytest.mark.parametrize(
    "value", ["moved", b"1" + json.dumps({"id": "x", "items": []}).encode(), b"\xff", b"4", b"2" * 90]
)
async def test_a_planted_conversation_is_refused(api, redis, value):
    victim, client = await api.client("other"), await api.client()
    victims, own = await conversation(victim), await conversation(client)
    if value == "moved":
        value = await redis.hget(keys.conversation("other", victims), "doc")
    await redis.hset(keys.conversation("acme", own), "doc", value)
    body = {"model": SOL, "input": "x"}
    for answer in (
        await client.get(f"/v1/conversations/{own}"),
        await client.get(f"/v1/conversations/{own}/items"),
        await client.post(f"/v1/conversations/{own}", json={"metadata": {"a": "b"}}),
        await client.post(f"/v1/conversations/{own}/items", json={"items": [{"role": "user", "content": "x"}]}),
        await client.post("/v1/responses", json={**body, "conversation": own, "background": True}),
        await client.post("/v1/jobs", json={**body, "params": {"conversation": own}}),
        await client.post("/v1/responses/input_tokens", json={**body, "conversation": own}),
    ):
        harmless(answer, 400, 404, 409, 410, 422, 503)
    harmless(await client.delete(f"/v1/conversations/{own}"), 200)


async def test_a_conversation_of_another_type_is_no_internal_error(api, redis):
    client = await api.client()
    own = await conversation(client)
    await redis.delete(keys.conversation("acme", own))
    await redis.set(keys.conversation("acme", own), "x")
    for answer in (
        await client.get(f"/v1/conversations/{own}"),
        await client.post(f"/v1/conversations/{own}", json={"metadata": {"a": "b"}}),
        await client.post("/v1/jobs", json={"model": SOL, "input": "x", "params": {"conversation": own}}),
        await client.delete(f"/v1/conversations/{own}"),
    ):
        assert answer.status_code != 500, answer.text


async def test_references_to_another_app_s_job_show_nothing(api, redis, other):
    client = await api.client()
    own = await submitted(client, metadata={"a": "b"})
    score = await redis.zscore(keys.index("other"), other)
    async for name in redis.scan_iter("vigil:idx:acme*"):
        await redis.zadd(name, {other: score})
    await redis.set(keys.ref("item", "acme:msg_x"), other)
    for kind in ("response", "request"):
        await redis.set(keys.ref(kind, "x"), other)
    response_id = other.replace("job_", "resp_")
    for query in ("", "?metadata=a%3Db", "?status=queued", "?status=completed&model=gpt-5.6-sol", "?response_id=x"):
        answer = await client.get(f"/v1/jobs{query}")
        harmless(answer, 200)
        assert other not in answer.text
    act = {"filter": {"model": SOL}, "limit": 100}
    for action in ("redeliver", "delete_content", "rerun", "cancel"):
        answer = await client.post("/v1/jobs/actions", json={"action": action, **act})
        harmless(answer, 200)
        assert other not in answer.text
    assert own in (await client.get("/v1/jobs")).text
    item = [{"type": "item_reference", "id": "msg_x"}]
    for body in ({"input": item}, {"input": "x", "previous_response_id": response_id}):
        harmless(await client.post("/v1/responses", json={"model": SOL, "background": True, **body}), 400, 404)
    assert (await (await api.client("other")).get(f"/v1/jobs/{other}")).json()["content"] == "kept"


async def test_keys_and_callers_that_name_another_app_s_job_do_not_lead_to_it(api, redis, other):
    client = await api.client()
    body = {"model": SOL, "input": "x", "background": True}
    first = (await client.post("/v1/responses", json=body, headers={"Idempotency-Key": "k"})).json()["id"]
    (name,) = [name async for name in redis.scan_iter("vigil:idem:acme:*")]
    remembered = await redis.get(name)
    await redis.set(name, remembered.replace(first.replace("resp_", "job_").encode(), other.encode()))
    harmless(await client.post("/v1/responses", json=body, headers={"Idempotency-Key": "k"}), 400, 422)
    await client.post("/v1/responses", json=body, headers=SDK)
    (callers,) = [name async for name in redis.scan_iter("vigil:callers:acme:*")]
    for state in ("left:9999999999999", "dead:1", "left:x", ""):
        await redis.delete(callers)
        await redis.hset(callers, mapping={other: state, "job_x": "left:9999999999999", "": "left:9999999999999"})
        answer = await client.post("/v1/responses", json=body, headers={"X-Stainless-Retry-Count": "1"})
        harmless(answer, 200, 202)
        assert answer.json()["id"] not in {other.replace("job_", "resp_"), first}
    await redis.delete(callers)
    await redis.set(callers, "of another type")
    answer = await client.post("/v1/responses", json=body, headers={"X-Stainless-Retry-Count": "1"})
    assert answer.status_code != 500, answer.text


@pytest.mark.parametrize("kind", ["session", "link"])
async def test_planted_sessions_let_nobody_in(api, redis, kind):
    record = await api.apps.find(await api.key("other"))
    token = ("vgs_" if kind == "session" else "vgo_") + "A" * 32
    body = {"key_id": record.id, "digest": "x", "expires_at": 9_999_999_999_999}
    client = await api.client()
    digest = hashlib.sha256(token.encode()).hexdigest()
    name = keys.console_session(digest) if kind == "session" else keys.console_link(digest)
    for raw in (json.dumps(body), json.dumps({**body, "mac": f"1.{'0' * 8}.{'0' * 32}"}), "x", "{}", "[]", "\xff"):
        await redis.set(name, raw)
        if kind == "session":
            answer = await client.get("/console/now", headers={"Cookie": f"vigil_console={token}"})
            assert (answer.status_code, answer.headers.get("location", "")[:14]) == (303, "/console/login"), answer.text
        else:
            form = {"secret": token, "next": ""}
            origin = {"Origin": api.base_url}
            answer = await client.post("/console/login", data=form, headers=origin)
            assert answer.status_code == 401
    await redis.delete(name)
    await redis.hset(name, "x", "y")
    if kind == "session":
        answer = await client.get("/console/now", headers={"Cookie": f"vigil_console={token}"})
    else:
        answer = await client.post("/console/login", data={"secret": token}, headers={"Origin": api.base_url})
    assert answer.status_code in {303, 401, 503}, answer.text
