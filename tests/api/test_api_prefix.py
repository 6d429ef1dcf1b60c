"""Behind a proxy: the addresses that Vigil names are those that its caller can use."""

from __future__ import annotations

import html

import pytest
from api_server import running, submitted
from hypothesis import given, strategies as st
from pydantic import ValidationError
from raw_client import RawClient, request

from api.web.forwarded import prefix_of, scheme_of
from worker.settings import Settings

BODY = {"model": "gpt-5.6-sol", "input": "Hi"}
HOOK = {"url": "https://hooks.example/a", "events": ["job.completed"]}


@pytest.mark.parametrize("how", ["setting", "header"])
async def test_every_address_has_the_prefix(settings, redis, clock, how):
    rooted = settings.model_copy(update={"root_path": "/api/vigil"} if how == "setting" else {})
    async with running(rooted, redis, clock) as api:
        acme = await api.client()
        if how == "header":
            acme.headers["X-Forwarded-Prefix"] = "/api/vigil/"
        answer = await acme.post("/v1/jobs", json=BODY)
        job_id = answer.json()["id"]
        assert answer.headers["location"] == f"/api/vigil/v1/jobs/{job_id}"
        base = f"{api.base_url}/api/vigil/v1/jobs/{job_id}"
        for shown in (answer.json(), (await acme.get(f"/v1/jobs/{job_id}")).json()):
            assert shown["urls"]["self"] == base
            assert all(url.startswith(base) for url in shown["urls"].values())
        rows = (await acme.post("/v1/jobs/batch", json={"jobs": [BODY]})).json()
        assert rows[0]["job"]["urls"]["self"].startswith(f"{api.base_url}/api/vigil/v1/jobs/")
        made = await acme.post("/v1/webhook-endpoints", json=HOOK)
        assert made.headers["location"] == f"/api/vigil/v1/webhook-endpoints/{made.json()['id']}"
        assert (await acme.get("/openapi.json")).json()["servers"] == [{"url": "/api/vigil"}]
        assert "href='/api/vigil/openapi.json'" in html.unescape((await acme.get("/docs")).text)


async def test_a_proxy_may_leave_the_prefix_in_the_path(settings, redis, clock):
    async with running(settings.model_copy(update={"root_path": "/api/vigil"}), redis, clock) as api:
        acme = await api.client()
        answer = await acme.post("/api/vigil/v1/jobs", json=BODY)
        assert answer.status_code == 202
        assert (await acme.get(answer.headers["location"])).json()["id"] == answer.json()["id"]
        assert (await acme.get("/api/vigil/healthz")).status_code == 200
        assert (await acme.get("/api/vigilant/healthz")).status_code == 404


async def test_the_header_wins_over_the_setting_and_rubbish_is_ignored(settings, redis, clock):
    async with running(settings.model_copy(update={"root_path": "/set"}), redis, clock) as api:
        acme = await api.client()
        for sent, expected in (
            ("/sent", "/sent"),
            ("/a, /b", "/a/b"),
            ("/", ""),
            ("//evil.example", "/set"),
            ("/../x", "/set"),
            ("https://evil.example", "/set"),
            ('/a"<b>', "/set"),
            ("", "/set"),
            ("/a" * 400, "/set"),
        ):
            answer = await acme.post("/v1/jobs", json=BODY, headers={"X-Forwarded-Prefix": sent})
            assert answer.headers["location"] == f"{expected}/v1/jobs/{answer.json()['id']}", sent


async def test_nobody_else_sets_prefix_or_scheme(settings, redis, clock):
    async with running(settings.model_copy(update={"trusted_proxies": ("10.0.0.0/8",)}), redis, clock) as api:
        acme = await api.client()
        headers = {"X-Forwarded-Prefix": "/evil", "X-Forwarded-Proto": "https"}
        answer = await acme.post("/v1/jobs", json=BODY, headers=headers)
        assert answer.headers["location"].startswith("/v1/jobs/")
        assert answer.json()["urls"]["self"].startswith(f"{api.base_url}/v1/jobs/")


@pytest.mark.parametrize(
    ("sent", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("https, http", "https"),
        ("http,https", "http"),
        ("https ,http", "https"),
        ("wss", "https"),
        ("WS", "http"),
        ("gopher", "http"),
        ("", "http"),
        ("javascript:alert(1)", "http"),
    ],
)
async def test_the_scheme_is_http_or_https(acme, sent, scheme):
    answer = await acme.get(f"/v1/jobs/{await submitted(acme)}", headers={"X-Forwarded-Proto": sent})
    assert answer.json()["urls"]["self"].startswith(f"{scheme}://127.0.0.1:")


@given(st.text(max_size=40))
def test_a_prefix_is_a_path_of_this_host_or_nothing(text):
    found = prefix_of(text)
    assert found is None or found == "" or (found[0] == "/" and "//" not in found and not set(found) & set('"<>\\ ?#%'))
    assert scheme_of(text) in {None, "http", "https"}


@pytest.mark.parametrize("value", ["api", "/a//b", "/a?b", "https://x", "/a b", "/%2e%2e", "/.."])
def test_a_root_path_is_a_path(value):
    with pytest.raises(ValidationError, match="must be a path"):
        Settings(_env_file=None, root_path=value)


async def test_a_client_of_http_1_0_gets_no_chunks(api, acme, worker):
    key, job_id = acme.headers["authorization"].removeprefix("Bearer "), await submitted(acme)
    await worker.start(job_id)
    client = await RawClient(api).send(request(key, "GET", f"/v1/jobs/{job_id}/events", version="1.0"))
    got = await client.until(b"job.started")
    await worker.complete(job_id)
    head, _, body = (got + await client.rest()).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert b"connection: close" in head.lower()
    assert body.startswith(b"id: 1\nevent: ")
    assert body.endswith(b"\n\n")
    assert b"event: job.completed" in body
    client.close()
    for path in (f"/v1/responses/{job_id}?stream=true", f"/v1/jobs/{job_id}", "/healthz", "/metrics"):
        one = await RawClient(api).send(request(key, "GET", path, version="1.0"))
        head, _, body = (await one.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"transfer-encoding" not in head.lower()
        assert body[:1] in {b"e", b"{", b"#"}
        one.close()


async def test_a_key_that_reads_may_read_responses(api, acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.complete(job_id)
    for scopes in (("read",), ("submit",)):
        client = await api.client("acme", scopes)
        assert (await client.get(f"/v1/responses/{job_id}")).json()["status"] == "completed"
        assert "response.completed" in (await client.get(f"/v1/responses/{job_id}?stream=true")).text
    other = await api.client("other", ("read",))
    assert (await other.get(f"/v1/responses/{job_id}")).status_code == 404
    reader = await api.client("acme", ("read",))
    for answer in (
        await reader.post(f"/v1/responses/{job_id}/cancel"),
        await reader.delete(f"/v1/responses/{job_id}"),
        await reader.post("/v1/responses", json=BODY),
        await (await api.client("acme", ("audit", "ops"))).get(f"/v1/responses/{job_id}"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
