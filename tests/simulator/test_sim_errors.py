"""Errors before a stream: the SDK's own classes, the right codes and headers, and never a traceback."""

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from worker.simulator import Simulator
from worker.simulator.errors import CODES, shape

SOL = "gpt-5.6-sol"


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("block_before_stream", openai.BadRequestError, "cyber_policy"),
        ("block_before_stream code=bio_policy", openai.BadRequestError, "bio_policy"),
        ("block_before_stream carrier=http_502", openai.InternalServerError, "cyber_policy"),
        ("prompt_block", openai.BadRequestError, "invalid_prompt"),
        ("misalignment", openai.PermissionDeniedError, "misalignment_policy_violation"),
        ("model_not_found", openai.NotFoundError, "model_not_found"),
        ("wrong_project", openai.PermissionDeniedError, "model_not_found"),
        ("wrong_organization", openai.AuthenticationError, "mismatched_organization"),
        ("invalid_key", openai.AuthenticationError, "invalid_api_key"),
        ("region", openai.PermissionDeniedError, "unsupported_country_region_territory"),
        ("verification", openai.BadRequestError, "unsupported_value"),
        ("program_required", openai.PermissionDeniedError, None),
        ("html_403", openai.PermissionDeniedError, None),
        ("rate_limited", openai.RateLimitError, "rate_limit_exceeded"),
        ("slow_down", openai.RateLimitError, "slow_down"),
        ("quota", openai.RateLimitError, "insufficient_quota"),
        ("quota code=credit_balance_exhausted", openai.RateLimitError, "credit_balance_exhausted"),
        ("overloaded", openai.InternalServerError, "server_is_overloaded"),
        ("overloaded code=flex_unavailable", openai.RateLimitError, "flex_unavailable"),
        ("server_error", openai.InternalServerError, "server_error"),
        ("context_too_long", openai.BadRequestError, "context_length_exceeded"),
        ("gateway_block", openai.BadRequestError, "400"),
        ("gateway_not_found", openai.NotFoundError, "404"),
        ("sse_block", openai.PermissionDeniedError, None),
        ("no_such_scenario", openai.BadRequestError, "sim_directive_invalid"),
    ],
)
async def test_errors_are_the_sdks_own(client: AsyncOpenAI, text: str, kind: type, code: str | None) -> None:
    with pytest.raises(kind) as caught:
        await client.responses.create(model=SOL, input=f"[[sim: {text}]] x", stream=True)
    assert caught.value.code == code
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(
            model=SOL, messages=[{"role": "user", "content": f"[[sim: {text}]] y"}], stream=True
        )
    assert caught.value.code == code


async def test_a_stream_can_fail_in_one_piece_too(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=SOL, input="[[sim: check_then_block]]")
    assert caught.value.code == "cyber_policy"
    failed = await client.responses.create(model=SOL, input="[[sim: bio_block]]")
    assert failed.status == "failed"


async def test_headers_tell_who_and_when(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        await client.responses.create(
            model=SOL, input="[[sim: rate_limited]]", extra_headers={"OpenAI-Project": "proj_mine"}
        )
    head = caught.value.response.headers
    assert (head["retry-after"], head["retry-after-ms"], head["x-ratelimit-remaining-requests"]) == ("2", "1500", "0")
    assert (head["openai-project"], head["openai-organization"]) == ("proj_mine", "org-sim")
    assert caught.value.request_id == head["x-request-id"]
    with pytest.raises(openai.BadRequestError) as blocked:
        await client.responses.create(model=SOL, input="[[sim: block_before_stream org=org-other]]")
    assert blocked.value.response.headers["openai-organization"] == "org-other"
    assert int(blocked.value.response.headers["openai-processing-ms"]) > 9000


async def test_an_error_from_the_edge_has_no_request_id(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await client.responses.create(model=SOL, input="[[sim: html_403]]")
    assert caught.value.request_id is None
    assert "html" in str(caught.value.body)


async def test_a_failure_happens_so_many_times_and_then_it_is_answered(client: AsyncOpenAI) -> None:
    for model in (SOL, "gpt-5.6-terra"):
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                await client.responses.create(model=model, input="[[sim: overloaded times=2]] again")
        answer = await client.responses.create(model=model, input="[[sim: overloaded times=2]] again")
        assert answer.status == "completed"


async def test_verification_concerns_only_streams(client: AsyncOpenAI) -> None:
    assert (await client.responses.create(model=SOL, input="[[sim: verification]]")).status == "completed"


async def test_models(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert SOL in names
    assert (await client.models.retrieve(SOL)).id == SOL
    for name in ("gpt-5.6-cyber", "no-such-model"):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve(name)
        assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="gpt-5.6-cyber", input="x")


async def test_who_is_denied_can_change_while_it_runs(sim: Simulator, client: AsyncOpenAI) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{sim.root}/sim/denied", json={"models": [SOL]}) as answer:
            assert await answer.json() == {"denied": [SOL]}
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve(SOL)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model=SOL, input="x")
        for body in (b"{", b"[]", b'{"models": "x"}', b'{"models": [1]}'):
            async with session.post(f"{sim.root}/sim/denied", data=body) as answer:
                assert answer.status == 400
    sim.deny()
    assert (await client.models.retrieve(SOL)).id == SOL


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/responses", b"{", 400),
        ("POST", "/v1/responses", b"[]", 400),
        ("POST", "/v1/responses", b"[" * 100_000, 400),
        ("POST", "/v1/responses", b'{"input":"x"}', 400),
        ("POST", "/v1/responses", b'{"model":"m"}', 400),
        ("POST", "/v1/responses", b'{"model":5,"input":"x"}', 400),
        ("POST", "/v1/responses", b'{"model":"m","input":7}', 400),
        ("POST", "/v1/responses", b'{"model":"m","input":"x","stream":"yes"}', 400),
        ("POST", "/v1/responses", b'{"model":"m","input":[1,null,{"role":"user","content":[3]}]}', 200),
        ("POST", "/v1/responses", b'{"model":"m","input":"x","service_tier":[],"tools":3,"text":4}', 200),
        ("POST", "/v1/responses", b'{"model":"m","input":"\\ud800"}', 200),
        ("POST", "/v1/chat/completions", b'{"model":"m","messages":[]}', 400),
        ("GET", "/v1/nothing", b"", 404),
        ("PUT", "/v1/responses", b"", 405),
        ("GET", "/sim/nothing", b"", 404),
        ("POST", "/sim/webhooks", b"no", 400),
        ("POST", "/sim/webhooks", b'{"type":"a","data":{}}', 400),
    ],
)
async def test_wrong_requests_get_the_envelope(
    sim: Simulator, method: str, path: str, body: bytes, status: int
) -> None:
    async with (
        aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as session,
        session.request(method, sim.root + path, data=body) as answer,
    ):
        assert answer.status == status
        reply = await answer.json()
    assert status == 200 or reply["error"]["message"]


@pytest.mark.parametrize("key", [None, "", "Bearer ", "Basic abc"])
async def test_a_key_is_needed(sim: Simulator, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": key}
    async with aiohttp.ClientSession() as session, session.get(f"{sim.url}/models", headers=headers) as answer:
        assert answer.status == 401
        assert (await answer.json())["error"]["code"] == "invalid_api_key"


def test_every_code_has_its_shape() -> None:
    for code in CODES:
        found = shape(code, model="m", project="p")
        assert found.code == code
        assert found.status in {400, 401, 403, 404, 429, 500, 503}
    assert shape("brand_new", model="m", project="p").status == 400
