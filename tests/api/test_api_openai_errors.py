"""Errors of the OpenAI-compatible API, as the SDK's own classes, and its part of the document."""

from __future__ import annotations

import openai
import pytest
from api_server import submitted
from openai import AsyncOpenAI
from openai_sdk import SOL

from api.openai_compat.event_sequence import CHUNK, EventSequence, split


@pytest.fixture
async def client(api):
    async with AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), max_retries=0) as client:
        yield client


REFUSED = [
    ({"previous_response_id": "resp_x"}, openai.BadRequestError, "previous_response_not_found", "previous_response_id"),
    ({"conversation": "conv_1"}, openai.NotFoundError, "conversation_not_found", "conversation"),
    ({"model": "gpt-99"}, openai.NotFoundError, "model_not_found", "model"),
    ({"model": 7}, openai.UnprocessableEntityError, "validation_error", "model"),
    ({"input": ""}, openai.UnprocessableEntityError, "validation_error", "input"),
    ({"input": []}, openai.UnprocessableEntityError, "validation_error", "input"),
    ({"instructions": 5}, openai.UnprocessableEntityError, "validation_error", "instructions"),
    ({"background": "yes"}, openai.UnprocessableEntityError, "validation_error", "background"),
    ({"extra_body": {"stream": 1}}, openai.UnprocessableEntityError, "validation_error", "stream"),
    ({"metadata": {"a": 1}}, openai.UnprocessableEntityError, "validation_error", "metadata.a"),
    ({"metadata": {str(i): "" for i in range(17)}}, openai.UnprocessableEntityError, "validation_error", "metadata"),
    ({"metadata": []}, openai.UnprocessableEntityError, "validation_error", "metadata"),
    ({"safety_identifier": ""}, openai.UnprocessableEntityError, "validation_error", "safety_identifier"),
    ({"extra_body": {"user": 5}}, openai.UnprocessableEntityError, "validation_error", "user"),
    ({"extra_body": {"vigil": 5}}, openai.UnprocessableEntityError, "validation_error", "vigil"),
    ({"extra_body": {"vigil": {"x": 1}}}, openai.UnprocessableEntityError, "validation_error", "vigil.x"),
    ({"extra_body": {"vigil": {"params": {}}}}, openai.UnprocessableEntityError, "validation_error", "vigil.params"),
    (
        {"extra_body": {"vigil": {"policy": {"max_attempts": 0}}}},
        openai.UnprocessableEntityError,
        "validation_error",
        "vigil.policy.max_attempts",
    ),
    (
        {"extra_body": {"vigil": {"policy": {"fallback": ["gpt-99"]}}}},
        openai.UnprocessableEntityError,
        "unknown_model",
        "vigil.policy.fallback[0]",
    ),
    (
        {"extra_body": {"vigil": {"webhook": {"url": "ftp://x"}}}},
        openai.UnprocessableEntityError,
        "webhook_url_malformed",
        "vigil.webhook.url",
    ),
    ({"extra_body": {"vigil": {"end_user": 5}}}, openai.UnprocessableEntityError, "validation_error", "vigil.end_user"),
    (
        {"extra_headers": {"Idempotency-Key": "two words"}},
        openai.BadRequestError,
        "invalid_idempotency_key",
        None,
    ),
]


@pytest.mark.parametrize(("given", "kind", "code", "param"), REFUSED)
async def test_bad_requests(client, redis, given, kind, code, param):
    with pytest.raises(kind) as raised:
        await client.responses.create(**{"model": SOL, "input": "Hi", "background": True, **given})
    error = raised.value
    assert (error.code, error.param, error.type) == (code, param, "invalid_request_error")
    assert error.body["message"]
    assert error.request_id
    assert not await redis.keys("vigil:job:*")


async def test_keys_and_scopes(api, client):
    with pytest.raises(openai.AuthenticationError) as raised:
        await client.with_options(api_key="vgl_wrong").responses.create(model=SOL, input="Hi")
    assert (raised.value.code, raised.value.response.headers["www-authenticate"]) == ("invalid_api_key", "Bearer")
    neither = client.with_options(api_key=await api.key(scopes=("audit", "ops")))
    reading = client.with_options(api_key=await api.key(scopes=("read", "audit", "ops")))
    response_id = "resp_" + "0" * 26
    for call in (
        reading.responses.create(model=SOL, input="Hi"),
        neither.responses.retrieve(response_id),
        reading.responses.cancel(response_id),
        reading.responses.delete(response_id),
    ):
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await call
        assert raised.value.code == "insufficient_scope"


async def test_what_is_not_there_or_is_another_apps(api, client, acme):
    other = await api.client("other")
    for response_id in (
        "resp_nonsense",
        "resp_" + "0" * 26,
        (await submitted(other)).replace("job_", "resp_"),
        await submitted(other),
    ):
        for call in (
            client.responses.retrieve(response_id),
            client.responses.retrieve(response_id, stream=True),
            client.responses.cancel(response_id),
            client.responses.delete(response_id),
        ):
            with pytest.raises(openai.NotFoundError) as raised:
                await call
            assert raised.value.code == "response_not_found"


@pytest.mark.parametrize(
    ("sent", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 422),
        (b'{"model": "gpt-5.6-sol", "model": "x"}', {}, 422),
        (b'{"input": NaN}', {}, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b'"' + b"x" * 70_000 + b'"', {}, 413),
    ],
)
async def test_malformed_bodies_have_the_envelope(acme, sent, headers, status):
    answer = await acme.post("/v1/responses", content=sent, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()["error"]) == {"message", "type", "code", "param", "vigil"}


@pytest.mark.parametrize(
    "params",
    [{"stream": "yes"}, {"stream": ""}, {"starting_after": "-1"}, {"starting_after": "x"}, {"starting_after": ""}],
)
async def test_bad_parameters(acme, params):
    job_id = await submitted(acme)
    answer = await acme.get(f"/v1/responses/{job_id}", params=params)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, next(iter(params)))
    assert (await acme.get(f"/v1/responses/{job_id}", params={"include[]": "x"})).status_code == 200


async def test_idempotency_key_reused(client):
    headers = {"Idempotency-Key": "k"}
    await client.responses.create(model=SOL, input="Hi", background=True, extra_headers=headers)
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        await client.responses.create(model=SOL, input="Other", background=True, extra_headers=headers)
    assert raised.value.code == "idempotency_key_reused"


async def test_the_input_items_of_an_unknown_response_are_not_found(client):
    with pytest.raises(openai.NotFoundError) as raised:
        await client.responses.input_items.list("resp_x")
    assert raised.value.code == "response_not_found"


async def test_a_store_that_is_away_is_a_server_error(client, monkeypatch):
    from worker.jobs.errors import StoreUnavailable
    from worker.store.jobs.repository import Jobs

    async def away(*_, **__):
        raise StoreUnavailable("submit")

    monkeypatch.setattr(Jobs, "submit", away)
    with pytest.raises(openai.InternalServerError) as raised:
        await client.responses.create(model=SOL, input="Hi", background=True)
    assert (raised.value.status_code, raised.value.code) == (503, "store_unavailable")
    assert raised.value.response.headers["retry-after"]
    monkeypatch.setattr(Jobs, "submit", lambda *_: 1 / 0)
    with pytest.raises(openai.InternalServerError) as raised:
        await client.responses.create(model=SOL, input="Hi", background=True)
    assert (raised.value.status_code, raised.value.code, raised.value.type) == (500, "internal_error", "server_error")


async def test_the_document_has_the_openai_routes(acme):
    doc = (await acme.get("/openapi.json")).json()
    routes = [
        ("/v1/responses", "post", {"200", "400", "401", "403", "404", "413", "415", "422", "429", "500", "503"}),
        ("/v1/responses/{job_id}", "get", {"200", "401", "403", "404", "422", "429", "500", "503"}),
        (
            "/v1/responses/{job_id}",
            "delete",
            {"200", "400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "503"},
        ),
        (
            "/v1/responses/{job_id}/cancel",
            "post",
            {"200", "400", "401", "403", "404", "413", "415", "422", "429", "500", "503"},
        ),
    ]
    for path, method, statuses in routes:
        operation = doc["paths"][path][method]
        assert set(operation["responses"]) == statuses
        assert operation["x-scope"] == ("read or submit" if method == "get" else "submit")
        for status, row in operation["responses"].items():
            if status != "200":
                assert set(row["content"]) == {"application/json"}
                assert row["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/OpenAIErrorBody"}
    assert "text/event-stream" in doc["paths"]["/v1/responses"]["post"]["responses"]["200"]["content"]


@pytest.mark.parametrize("text", ["", "x", "x" * CHUNK, "x" * (CHUNK + 1), "\U0001f600" * 100])
def test_text_is_split_alike_however_it_arrives(text):
    assert "".join(split(text)) == text
    assert all(len(chunk) == CHUNK for chunk in split(text)[:-1])
    assert len(split(text, 9)) == max(9, -(-len(text) // CHUNK))
    at_once, one_by_one = EventSequence("t"), EventSequence("t")
    if text:
        list(at_once.show(1, split(text)))
        for chunk in split(text):
            list(one_by_one.show(1, [chunk]))
    assert at_once.take() == one_by_one.take()
