"""The access probe: each error shape of wire.md section 4 gives its diagnosis and its next step, over a real socket."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.upstream.rawserver import Connection, RawServer, Script, as_json, plays
from tests.upstream.upstream_calls import ProviderAt
from worker.upstream.probe import ProbeResult, probe

SOL = "gpt-5.6-sol"
PAGE = b"<html><body>no</body></html>"
HEAD = b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncf-ray: 9\r\ncontent-length: %d\r\n\r\n"
MODEL = {"id": SOL, "object": "model", "created": 1, "owned_by": "openai"}


def error(code: Any, kind: Any = "invalid_request_error", param: str | None = None, message: str = "m") -> Any:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def ask(provider_at: ProviderAt, *parts: bytes | Script, model: str = SOL, seconds: float = 5.0) -> ProbeResult:
    scripts = [plays(part) if isinstance(part, bytes) else part for part in parts]
    async with RawServer(*scripts) as server:
        found = await probe(provider_at(server.url), model, "probe-1", seconds)
        assert [r.method for r in server.requests] == ["GET"] * len(server.requests)
        paths = [request.path for request in server.requests[1:]]
        assert paths in ([], ["/v1/models"]), "one question, no retry; and the list where there is no page"
        assert server.requests[0].headers["x-client-request-id"] == "probe-1"
        assert server.requests[0].path == f"/v1/models/{quote(model, safe='')}"
        return found


TABLE = [
    # wire.md section 4, row by row
    ("not granted", 404, error("model_not_found"), "not_granted", "Codex workspace"),
    ("wrong project", 403, error("model_not_found"), "wrong_project", "project's limits"),
    ("wrong organisation", 401, error("mismatched_organization"), "wrong_organization", "OPENAI_ORG_ID"),
    ("bad key", 401, error("invalid_api_key"), "key", "OPENAI_API_KEY"),
    ("not a member, or the address", 401, error(None), "key", "allow-list"),
    ("region", 403, error("unsupported_country_region_territory", "request_forbidden"), "region", "VPN"),
    ("not verified", 400, error("unsupported_value", param="stream"), "not_granted", "Verify the organisation"),
    ("program", 403, error(None, param="access_programs.cyber"), "not_granted", "access program"),
    ("residency", 400, error("data_residency_mismatch"), "region", "project's region"),
    ("service tier", 400, error(None, param="service_tier"), "unknown", "Probe again"),
    # section 6: money is a finding, speed is none
    ("quota", 429, error("insufficient_quota", "insufficient_quota"), "quota", "billing"),
    ("credit", 429, error("credit_balance_exhausted"), "quota", "add credit"),
    ("project's spend limit", 429, error("project_spend_limit_exceeded"), "quota", "spend limit"),
    ("rate limit", 429, error("rate_limit_exceeded", "requests"), "unknown", "Probe again"),
    ("overloaded", 503, error("server_is_overloaded", "service_unavailable_error"), "unknown", "Probe again"),
    ("a fault of theirs", 500, error("server_error", "server_error"), "unknown", "Probe again"),
    # what only looks like a denial
    ("no model list", 404, error(None), "unknown", "OPENAI_BASE_URL"),
    ("no model list, other body", 404, {"detail": "Not Found"}, "unknown", "OPENAI_BASE_URL"),
    ("no model list, no error", 404, {}, "unknown", "OPENAI_BASE_URL"),
    ("another server's 404", 404, {"object": "error", "type": "NotFoundError", "code": 404}, "unknown", ""),
    ("a key that may not read", 403, error(None), "unknown", "right to read models"),
    ("a key without a scope", 403, error("missing_scope"), "unknown", "right to read models"),
]


@pytest.mark.parametrize(("name", "status", "body", "expected", "says"), TABLE, ids=[row[0] for row in TABLE])
async def test_each_error_shape_has_its_diagnosis(
    provider_at: ProviderAt, name: str, status: int, body: Any, expected: str, says: str
) -> None:
    found = await ask(provider_at, as_json(status, body, "x-request-id: req_9"))
    assert (found.status, found.request_id) == (expected, "req_9")
    assert says in found.advice
    assert found.advice.endswith(".")


@pytest.mark.parametrize("refused", [(404, {"detail": "Not Found"}), (405, {"detail": "Method Not Allowed"})], ids=str)
async def test_where_one_model_has_no_page_the_list_decides(provider_at: ProviderAt, refused: tuple[int, Any]) -> None:
    no_page = as_json(*refused)
    listed = {"object": "list", "data": [{"id": "llama3"}, {"name": "x"}, 7]}
    found = await ask(provider_at, no_page, as_json(200, listed), model="llama3")
    assert found.status == "ok"
    found = await ask(provider_at, no_page, as_json(200, listed), model="llama4")
    assert (found.status, found.found.code) == ("not_granted", "model_not_listed")
    assert "VIGIL_MODELS_FILE" in found.advice
    for odd in ({"data": []}, {}, [], {"data": {}}, {"data": None}, b"<html>"):
        found = await ask(provider_at, no_page, as_json(200, odd), model="llama3")
        assert found.found.code == "probe_not_offered"


async def test_a_model_that_is_listed_is_ok(provider_at: ProviderAt) -> None:
    found = await ask(provider_at, as_json(200, MODEL, "x-request-id: req_1"))
    assert (found.model, found.status, found.request_id) == (SOL, "ok", "req_1")


@pytest.mark.parametrize("body", [{}, [], {"id": 3}, b"<html>", b""], ids=str)
async def test_a_page_under_200_that_is_no_model_proves_nothing(provider_at: ProviderAt, body: Any) -> None:
    assert (await ask(provider_at, as_json(200, body))).status == "unknown"


async def test_an_edge_page_is_the_network(provider_at: ProviderAt) -> None:
    found = await ask(provider_at, HEAD % len(PAGE) + PAGE)
    assert (found.status, found.request_id) == ("network", None)
    assert "VPN" in found.advice


async def test_a_message_alone_denies_nothing(provider_at: ProviderAt) -> None:
    body = error(None, message=f"The model `{SOL}` does not exist or you do not have access to it.")
    assert (await ask(provider_at, as_json(404, body))).status == "unknown"


async def test_nobody_there_is_the_network(provider_at: ProviderAt) -> None:
    found = await probe(provider_at("http://127.0.0.1:1/v1"), SOL, "probe-1")
    assert (found.status, found.request_id) == ("network", None)
    assert found.found.code == "connection_refused"
    assert "OPENAI_BASE_URL" in found.advice


async def test_a_broken_or_silent_connection_is_the_network_and_soon(provider_at: ProviderAt) -> None:
    async def resets(connection: Connection) -> None:
        connection.reset()

    async def says_nothing(connection: Connection) -> None:
        await connection.gone()

    assert (await ask(provider_at, resets)).status == "network"
    assert (await ask(provider_at, says_nothing, seconds=0.2)).status == "network"


async def test_a_name_is_one_step_of_the_path(provider_at: ProviderAt) -> None:
    assert (await ask(provider_at, as_json(200, MODEL), model="ft:a/b")).status == "ok"
