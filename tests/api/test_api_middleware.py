"""Authentication and scopes, the headers of every response, the OpenAPI document."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import logging
import re

import pytest
from api_server import AdjustableClock, running, submitted
from starlette.responses import Response

import api.routes.status
from api.server import bind, serve
from worker.clock import Clock

ROUTES = [
    ("POST", "/v1/jobs", "submit"),
    ("POST", "/v1/jobs/batch", "submit"),
    ("GET", "/v1/jobs", "read"),
    ("GET", "/v1/jobs/{id}", "read"),
    ("DELETE", "/v1/jobs/{id}", "submit"),
    ("GET", "/v1/jobs/{id}/events", "read"),
    ("POST", "/v1/jobs/{id}/cancel", "submit"),
    ("POST", "/v1/jobs/{id}/retry", "submit"),
    ("POST", "/v1/jobs/{id}/rerun", "submit"),
    ("POST", "/v1/jobs/actions", "submit"),
    ("GET", "/v1/jobs/{id}/audit", "audit"),
    ("GET", "/v1/audit", "audit"),
    ("GET", "/v1/models", "read"),
    ("GET", "/v1/models/{model_id}", "read"),
    ("POST", "/v1/models/probe", "ops"),
    ("GET", "/v1/status", "read"),
    ("POST", "/v1/pause", "ops"),
    ("GET", "/v1/quarantine", "ops"),
    ("POST", "/v1/quarantine", "ops"),
    ("GET", "/v1/quarantine/{end_user}", "ops"),
    ("DELETE", "/v1/quarantine/{end_user}", "ops"),
    ("GET", "/v1/end-users", "ops"),
    ("GET", "/v1/end-users/{end_user}", "ops"),
    ("GET", "/v1/ops/end-users", "ops"),
    ("POST", "/v1/appeals", "ops"),
    ("GET", "/v1/appeals", "ops"),
    ("GET", "/v1/appeals/{appeal_id}", "ops"),
    *(("POST", f"/v1/appeals/{{appeal_id}}/{step}", "ops") for step in ("sent", "answer", "outcome", "notes", "jobs")),
    ("POST", "/v1/resume", "ops"),
    ("GET", "/v1/jobs/{id}/support-packet", "read"),
    ("POST", "/v1/jobs/{id}/support-packet", "read"),
    ("GET", "/v1/ops/scale", "ops"),
    ("GET", "/v1/ops/endpoint", "ops"),
    ("PATCH", "/v1/retention", "ops"),
    ("POST", "/v1/legal-holds", "ops"),
    ("POST", "/v1/legal-holds/lift", "ops"),
    ("GET", "/v1/accounts", "ops"),
    ("GET", "/v1/groups/{group_id}", "read"),
    ("GET", "/v1/jobs/{id}/why", "read"),
]


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_every_route_wants_a_key_with_its_scope(api, acme, method, path, scope):
    names = {"end_user": "u-1", "appeal_id": "appeal_x", "group_id": "group_x", "model_id": "gpt-5.6-sol"}
    path = path.format(id=await submitted(acme), **names)
    bare = await acme.request(method, path, headers={"Authorization": ""})
    assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer")
    others = tuple(s for s in ("submit", "read", "audit", "ops") if s != scope)
    lacking = await (await api.client(scopes=others)).request(method, path)
    assert (lacking.status_code, lacking.json()["code"]) == (403, "insufficient_scope")
    having = await (await api.client(scopes=(scope,))).request(method, path, headers={"Accept": "application/json"})
    assert having.status_code not in {401, 403}


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "Bearer",
        "Basic eDp5",
        "vgl_x",
        "Bearer vgl_x",
        "Bearer sk-abc",
        "Bearer vgl_" + "0" * 38,
        "Bearer {key}x",
        "Bearer \u00e9",
    ],
)
async def test_what_is_no_key_is_401(api, sent):
    client = await api.client()
    value = sent.format(key=await api.key()).encode()
    answer = await client.get("/v1/jobs", headers=[(b"Authorization", value)])
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


async def test_a_key_of_another_vigil_is_401(api, acme):
    from worker.store.key_text import new_key

    assert (await (await api.client(key=new_key(b"x" * 24))).get("/v1/jobs")).status_code == 401


async def test_two_keys_in_one_request_are_401(api):
    key = await api.key()
    client = await api.client(key=key)
    headers = [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
    assert (await client.get("/v1/jobs", headers=headers)).status_code == 401


async def test_the_scheme_is_case_insensitive(api):
    client = await api.client()
    assert (await client.get("/v1/jobs", headers={"Authorization": f"bearer {await api.key()}"})).status_code == 200


async def test_a_revoked_key_is_dead_within_five_seconds(settings, redis):
    clock = AdjustableClock()
    async with running(settings, redis, clock) as api:
        record, key, _ = await api.apps.create_key("acme", ("read",))
        client = await api.client(key=key)
        assert (await client.get("/v1/jobs")).status_code == 200
        await api.apps.revoke(record.id)
        clock.ahead = 4.9
        assert (await client.get("/v1/jobs")).status_code == 401


async def test_another_apps_job_does_not_exist(api, acme, worker):
    job_id = await submitted(acme, end_user="ann")
    await worker.start(job_id)
    rival = await api.client("rival")
    for method, tail in (
        ("GET", ""),
        ("GET", "?wait=5"),
        ("GET", "/events"),
        ("GET", "/audit"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/token"),
    ):
        answer = await rival.request(method, f"/v1/jobs/{job_id}{tail}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), tail
    assert (await rival.get("/v1/jobs")).json()["data"] == []
    assert (await rival.get("/v1/jobs?end_user=ann")).json()["data"] == []
    await submitted(acme)
    cursor = (await acme.get("/v1/jobs?limit=1")).json()["next_cursor"]
    assert (await rival.get("/v1/jobs", params={"cursor": cursor})).json()["data"] == []
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["status"] == "running"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs", 200),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/jobs/", 404),
        ("GET", "/", 404),
        ("DELETE", "/v1/jobs", 405),
        ("OPTIONS", "/v1/jobs", 405),
        ("POST", "/healthz", 405),
        ("POST", "/v1/jobs", 415),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", "/healthz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
    ],
)
async def test_every_response_has_security_headers_and_a_request_id(acme, method, path, status):
    answer = await acme.request(method, path)
    assert answer.status_code == status
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in answer.headers
    if status >= 400:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["status"] == status
        assert problem["type"].endswith(problem["code"])
        assert problem["title"]
        assert problem["detail"]
    if status == 405:
        assert answer.headers["allow"]


async def test_a_head_is_what_a_get_says_before_its_body(acme, worker):
    job_id = await submitted(acme)
    for path in ("/healthz", "/openapi.json", "/v1/jobs", f"/v1/jobs/{job_id}", "/v1/jobs?limit=0", "/v1/nothing"):
        got, head_response = await acme.get(path), await acme.head(path)
        assert (head_response.status_code, head_response.content) == (got.status_code, b"")
        named = {"x-request-id", "date"}
        assert {n: v for n, v in head_response.headers.items() if n not in named} == {
            n: v for n, v in got.headers.items() if n not in named
        }
    stream = await acme.head(f"/v1/jobs/{job_id}/events")  # which as a GET would not end
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (await acme.head(f"/v1/jobs/{job_id}/cancel")).headers["allow"] == "POST"
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["status"] == "queued"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/v1/jobs/batch", "POST"),
        ("/v1/jobs/job_1", "DELETE, GET, HEAD"),
        ("/v1/responses/resp_1", "DELETE, GET, HEAD"),
        ("/v1/webhook-endpoints/we_1", "DELETE, GET, HEAD, PATCH"),
        ("/healthz", "GET, HEAD"),
    ],
)
async def test_a_405_names_all_that_can_be_done(acme, path, methods):
    for method in ("PUT", "OPTIONS", "TRACE"):
        answer = await acme.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


async def test_only_a_valid_request_id_is_echoed(acme):
    assert (await acme.get("/healthz", headers={"X-Request-Id": "abc-1.2_3"})).headers["x-request-id"] == "abc-1.2_3"
    for sent in ("", "a b", "x" * 129, "<x>", "a,b"):
        assert (await acme.get("/healthz", headers={"X-Request-Id": sent})).headers["x-request-id"].startswith("req_")


async def test_an_internal_error_is_a_500_without_details(
    settings, redis, clock, monkeypatch, caplog, telemetry_events
):
    def broken(*_):
        raise RuntimeError("SECRET detail")

    monkeypatch.setattr(api.routes.status, "model_view", broken)
    async with running(settings, redis, clock) as served:
        client = await served.client()
        with caplog.at_level(logging.DEBUG):
            answer = await client.get("/v1/models")
        assert (await client.get("/healthz")).status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "SECRET" not in answer.text
    assert [fields["error"] for event, fields in telemetry_events if event == "api.broke"] == ["RuntimeError"]
    assert "SECRET" not in caplog.text
    assert "Traceback" not in caplog.text


_ELSEWHERE = (
    "/v1/responses",
    "/v1/chat",
    "/v1/conversations",
    "/v1/webhook-endpoints",
    "/hooks",
)  # test_api_{openai_errors,webhooks,hooks}.py


async def test_the_document_has_every_route_and_status(acme):
    doc = (await acme.get("/openapi.json")).json()
    assert doc["openapi"].startswith("3.1")
    assert doc["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    found = {(m.upper(), p): op for p, ops in doc["paths"].items() for m, op in ops.items()}
    assert {(m, p.replace("{id}", "{job_id}")) for m, p, _ in ROUTES} | {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("POST", "/v1/jobs/{job_id}/token"),  # of either of two scopes: test_api_job_tokens.py
        *(("GET", path) for path in ("/v1/legal-holds", "/v1/retention")),  # the same: test_api_legal_holds.py
        ("GET", "/v1/reports/safety"),  # the same
    } == {(m, p) for m, p in found if not p.startswith(_ELSEWHERE) and "/deliveries" not in p}
    names = [op["operationId"] for op in found.values()]
    assert len(set(names)) == len(names)
    for method, path, scope in ROUTES:
        op = found[method, path.replace("{id}", "{job_id}")]
        assert op["x-scope"] == scope
        by_token = path in {"/v1/jobs/{id}", "/v1/jobs/{id}/events"} and method == "GET"
        assert op["security"] == [{"key": []}, *([{"job_token": []}] if by_token else [])]
        assert {"401", "403", "422", "500", "503"} <= set(op["responses"])
        names_in_body = path.startswith("/v1/legal-holds")
        assert ("{" in path or names_in_body) == ("404" in op["responses"])
        for status, response in op["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/problem+json"]["schema"]
                of_models = method == "GET" and path.startswith("/v1/models")  # clients of OpenAI call them, too
                name = "ModelProblem" if of_models else "Problem"
                assert schema == {"$ref": f"#/components/schemas/{name}"}
    submit = found["POST", "/v1/jobs"]
    assert {"200", "202", "400", "413", "415"} <= set(submit["responses"])
    assert submit["requestBody"]["content"]["application/json"]["example"]["model"]


async def test_every_reference_of_the_document_resolves(acme):
    doc = (await acme.get("/openapi.json")).json()

    def references(value):
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in set(references(doc)):
        name = reference.removeprefix("#/components/schemas/")
        assert name in doc["components"]["schemas"], reference
    assert set(doc["components"]["schemas"]["Submit"]["required"]) == {"model", "input"}
    assert doc["components"]["schemas"]["Submit"]["additionalProperties"] is False


async def test_the_docs_page_shows_everything_and_loads_nothing(acme):
    doc, answer = (await acme.get("/openapi.json")).json(), await acme.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers.get_list("content-security-policy")
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == [f"default-src 'none'; frame-ancestors 'none'; style-src 'sha256-{digest}'"]
    for word in ("<script", "http://", "https://", "src=", "<link"):
        assert word not in answer.text.replace(html.escape("https://app.example"), ""), word
    for path, operations in doc["paths"].items():
        for method, operation in operations.items():
            assert f"<pre>{method.upper()} {path}</pre>" in answer.text
            assert html.escape(operation["summary"]) in answer.text
    for link in re.findall(r"href=\'#([^']+)'", answer.text):
        assert f"id='{link}'" in answer.text, link


async def test_serving_ends_with_its_task_or_its_stop_even_before_it_began(settings, redis, clock):
    for when in ("at once", "when ready"):
        ready, stop = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(serve(settings, redis, ready=ready, stop=stop, sock=bind("127.0.0.1", 0)))
        if when == "at once":
            stop.set()
            await serving
        else:
            await ready.wait()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("vigil-")]


async def test_a_port_that_is_taken_is_an_oserror(settings):
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await serve(settings.model_copy(update={"port": taken.getsockname()[1]}))


def test_responses_are_what_starlette_knows():
    from api.web.streaming import ChunkedResponse

    assert issubclass(ChunkedResponse, Response)


@pytest.mark.parametrize(("proxies", "scheme"), [(("10.0.0.0/8", "127.0.0.0/8"), "https"), (("10.0.0.0/8",), "http")])
async def test_only_a_trusted_proxy_sets_the_scheme(settings, redis, proxies, scheme):
    async with running(settings.model_copy(update={"trusted_proxies": proxies}), redis, Clock()) as api:
        acme = await api.client()
        answer = await acme.get(f"/v1/jobs/{await submitted(acme)}", headers={"X-Forwarded-Proto": "https"})
        assert answer.json()["urls"]["self"].startswith(f"{scheme}://127.0.0.1:")
