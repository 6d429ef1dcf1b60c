"""Pages of the origins that operators name may call the API from a browser; no other page may."""

from __future__ import annotations

import pytest
from api_server import running
from pydantic import ValidationError

from worker.settings import Settings

APP = "https://app.example"
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST"}


@pytest.fixture
async def open_api(settings, redis, clock):
    settings = settings.model_copy(update={"cors_origins": (APP, "http://localhost:5173")})
    async with running(settings, redis, clock) as api:
        yield api


def cors_of(answer):
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control")}


async def test_every_route_answers_a_preflight_without_a_key(open_api):
    client = await open_api.client()
    document = (await client.get("/openapi.json")).json()
    del client.headers["Authorization"]
    wanted = "authorization,content-type,idempotency-key,x-stainless-lang,x-stainless-retry-count,last-event-id"
    for path, methods in document["paths"].items():
        for method in methods:
            headers = {**PREFLIGHT, "Access-Control-Request-Method": method.upper()}
            headers["Access-Control-Request-Headers"] = wanted
            answer = await client.options(path.replace("{job_id}", "job_1"), headers=headers)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == APP
            assert answer.headers["access-control-allow-headers"] == wanted
            assert method.upper() in answer.headers["access-control-allow-methods"].split(", ")


async def test_answers_and_errors_can_be_read_with_their_headers(open_api, job_body):
    acme = await open_api.client()
    for answer in (
        await acme.post("/v1/jobs", json=job_body, headers={"Origin": APP}),
        await acme.post("/v1/jobs", json={}, headers={"Origin": APP}),
        await acme.get("/v1/nowhere", headers={"Origin": "http://localhost:5173"}),
        await acme.post("/v1/responses", content=b"{", headers={"Origin": APP}),
    ):
        assert answer.headers["access-control-allow-origin"] in {APP, "http://localhost:5173"}
        assert "Origin" in answer.headers["vary"]
        exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
        assert {"location", "retry-after", "x-vigil-served-model", "x-vigil-job", "etag"} <= set(exposed)
        safe = {"content-length", "content-type", "cache-control", "date", "vary", "content-security-policy"}
        shown = set(answer.headers) - safe - {"x-content-type-options", "referrer-policy"}
        assert {name for name in shown if not name.startswith("access-control")} <= set(exposed)
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null", "HTTPS://APP.EXAMPLE"]
)  # fmt: skip
async def test_other_origins_get_nothing(open_api, origin):
    acme = await open_api.client()
    assert cors_of(await acme.get("/v1/jobs", headers={"Origin": origin})) == {}
    refused = await acme.options("/v1/jobs", headers={**PREFLIGHT, "Origin": origin})
    assert (refused.status_code, cors_of(refused)) == (405, {})


async def test_it_is_off_by_default(acme):
    assert cors_of(await acme.get("/v1/jobs", headers={"Origin": APP})) == {}
    assert cors_of(await acme.options("/v1/jobs", headers=PREFLIGHT)) == {}


async def test_a_page_reads_its_job_with_a_token(open_api, job_body):
    acme = await open_api.client()
    job = (await acme.post("/v1/jobs", json=job_body)).json()["id"]
    token = (await acme.post(f"/v1/jobs/{job}/token")).json()["token"]
    del acme.headers["Authorization"]
    read = await acme.get(f"/v1/jobs/{job}", params={"token": token}, headers={"Origin": APP})
    assert (read.status_code, read.headers["access-control-allow-origin"]) == (200, APP)


@pytest.mark.parametrize(
    "wrong",
    ["*", "null", "https://*.example", "app.example", "https://app.example/", "https://app.example:443",
     "HTTPS://app.example", "http://app.example:80", "https://a.example/path", "https://user@a.example", "ftp://a.example"],
)  # fmt: skip
def test_only_exact_origins_can_be_set(wrong):
    with pytest.raises(ValidationError, match="origins as a browser sends them"):
        Settings(_env_file=None, cors_origins=f"https://ok.example,{wrong}")


def test_several_origins_are_separated_by_commas():
    given = Settings(_env_file=None, cors_origins="https://a.example, http://localhost:5173,http://[::1]:3000")
    assert given.cors_origins == ("https://a.example", "http://localhost:5173", "http://[::1]:3000")
