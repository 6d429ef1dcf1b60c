"""What a chat request may say: refused by name, or carried; and streams whose text is withdrawn."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from api_server import submitted
from openai import AsyncOpenAI
from openai_sdk import SOL
from waiting import LIMIT, until

from worker.jobs import events as ev

HELLO = [{"role": "user", "content": "Hello"}]
NESTED = {"type": "function", "function": {"name": "f"}}


@pytest.fixture
async def client(api):
    async with AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), max_retries=0) as client:
        yield client


def one_message(content, role="user", **more):
    return {"extra_body": {"messages": [{"role": role, "content": content, **more}]}}


BAD, UNPROCESSABLE, MISSING = openai.BadRequestError, openai.UnprocessableEntityError, openai.NotFoundError
REFUSED = [
    ({"n": 2}, BAD, "unsupported_parameter", "n"),
    ({"stop": ["x"]}, BAD, "unsupported_parameter", "stop"),
    ({"seed": 0}, BAD, "unsupported_parameter", "seed"),
    ({"frequency_penalty": 0.5}, BAD, "unsupported_parameter", "frequency_penalty"),
    ({"logit_bias": {"1": 2}}, BAD, "unsupported_parameter", "logit_bias"),
    ({"functions": [{"name": "f"}]}, BAD, "unsupported_parameter", "functions"),
    ({"modalities": ["text", "audio"]}, BAD, "unsupported_parameter", "modalities"),
    ({"web_search_options": {}}, BAD, "unsupported_parameter", "web_search_options"),
    ({"tools": [{"type": "web_search"}]}, BAD, "unsupported_parameter", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, UNPROCESSABLE, "validation_error", "tools[0].function"),
    ({"tool_choice": {"type": "function"}}, UNPROCESSABLE, "validation_error", "tool_choice.function"),
    ({"response_format": {"type": "x"}}, UNPROCESSABLE, "validation_error", "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, UNPROCESSABLE, "validation_error", "response_format.json_schema"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, UNPROCESSABLE, "validation_error", "max_tokens"),
    ({"max_tokens": 0}, UNPROCESSABLE, "validation_error", "max_tokens"),
    ({"top_logprobs": 2}, UNPROCESSABLE, "validation_error", "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, UNPROCESSABLE, "validation_error", "stream_options"),
    (
        {"stream": True, "stream_options": {"x": 1}},
        BAD,
        "unsupported_parameter",
        "stream_options.x",
    ),
    ({"extra_body": {"stream": "yes"}}, UNPROCESSABLE, "validation_error", "stream"),
    ({"extra_body": {"background": True}}, BAD, "unsupported_parameter", "background"),
    ({"extra_body": {"input": "Hi"}}, BAD, "unsupported_parameter", "input"),
    ({"extra_body": {"messages": []}}, UNPROCESSABLE, "validation_error", "messages"),
    ({"extra_body": {"messages": "Hi"}}, UNPROCESSABLE, "validation_error", "messages"),
    ({"extra_body": {"messages": ["Hi"]}}, UNPROCESSABLE, "validation_error", "messages[0]"),
    (
        {"extra_body": {"vigil": {"policy": {"max_attempts": 0}}}},
        UNPROCESSABLE,
        "validation_error",
        "vigil.policy.max_attempts",
    ),
    ({"extra_body": {"user": 5}}, UNPROCESSABLE, "validation_error", "user"),
    ({"metadata": {"a": 1}}, UNPROCESSABLE, "validation_error", "metadata.a"),
    ({"model": "gpt-99"}, MISSING, "model_not_found", "model"),
    ({"model": 7}, UNPROCESSABLE, "validation_error", "model"),
    (one_message("Hi", "robot"), UNPROCESSABLE, "validation_error", "messages[0].role"),
    (one_message("Hi", "function", name="f"), BAD, "unsupported_parameter", "messages[0].role"),
    (one_message("Hi", name="ann"), BAD, "unsupported_parameter", "messages[0].name"),
    (one_message("Hi", mood="x"), BAD, "unsupported_parameter", "messages[0].mood"),
    (one_message(None), UNPROCESSABLE, "validation_error", "messages[0].content"),
    (one_message([]), UNPROCESSABLE, "validation_error", "messages[0].content"),
    (one_message(None, "assistant"), UNPROCESSABLE, "validation_error", "messages[0].content"),
    (one_message("Hi", "tool"), UNPROCESSABLE, "validation_error", "messages[0].tool_call_id"),
    (one_message([{"type": "text"}]), UNPROCESSABLE, "validation_error", "messages[0].content[0].text"),
    (one_message([{"type": "text", "text": "a", "x": 1}]), BAD, "unsupported_parameter", "messages[0].content[0].x"),
    (one_message([{"type": "video"}]), UNPROCESSABLE, "validation_error", "messages[0].content[0].type"),
    (
        one_message([{"type": "image_url", "image_url": "x"}]),
        UNPROCESSABLE,
        "validation_error",
        "messages[0].content[0].image_url",
    ),
    (
        one_message([{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]),
        BAD,
        "unsupported_parameter",
        "messages[0].content[0]",
    ),
    (
        one_message([{"type": "file", "file": {"file_id": "file-1"}}]),
        BAD,
        "unsupported_parameter",
        "messages[0].content[0].file.file_id",
    ),
    (
        one_message([{"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}]),
        UNPROCESSABLE,
        None,
        "messages[0].content[0].image_url.url",
    ),
    (
        one_message(None, "assistant", tool_calls=[{"id": "c", "type": "function", "function": {"name": "f"}}]),
        UNPROCESSABLE,
        "validation_error",
        "messages[0].tool_calls[0].function.arguments",
    ),
]


@pytest.mark.parametrize(("given", "kind", "code", "param"), REFUSED)
async def test_what_cant_be_carried_is_refused_by_name(client, redis, given, kind, code, param):
    with pytest.raises(kind) as raised:
        await client.chat.completions.create(**{"model": SOL, "messages": HELLO, **given})
    error = raised.value
    assert error.param == param
    assert code in (None, error.code)
    assert error.body["message"].startswith(str(param)), "the message names it"
    assert error.body["vigil"]["code"]
    assert not await redis.keys("vigil:job:*")


async def test_what_asks_for_nothing_is_taken(api, acme, jobs):
    body = {
        "model": SOL,
        "messages": [{"role": "user", "content": "Hi", "name": None}],
        "stream": True,
        "n": 1,
        "stop": None,
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "modalities": ["text"],
        "logprobs": False,
        "tools": None,
        "functions": None,
        "user": "ben",
        "store": False,
        "top_k": 5,
        "temperature": 0.5,
        "reasoning_effort": "low",
        "verbosity": "low",
        "max_completion_tokens": 99,
    }
    async with acme.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        job_id = answer.headers["x-vigil-job"]
    stored, job = await jobs.load_input(job_id), (await jobs.load(job_id)).job
    assert stored["input"] == [{"role": "user", "content": "Hi"}]
    assert stored["params"] == {
        "top_k": 5,
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "max_output_tokens": 99,
    }
    assert (job.store, job.safety_identifier is not None) == (False, True)


async def test_keys_scopes_and_bodies(api, client, acme):
    with pytest.raises(openai.AuthenticationError) as raised:
        await client.with_options(api_key="vgl_wrong").chat.completions.create(model=SOL, messages=HELLO)
    assert raised.value.code == "invalid_api_key"
    reading = client.with_options(api_key=await api.key(scopes=("read",)))
    with pytest.raises(openai.PermissionDeniedError):
        await reading.chat.completions.create(model=SOL, messages=HELLO)
    for sent, kind, status in ((b"{", "application/json", 400), (b"[]", "application/json", 422), (b"{}", "a/b", 415)):
        answer = await acme.post("/v1/chat/completions", content=sent, headers={"content-type": kind})
        assert (answer.status_code, set(answer.json())) == (status, {"error"})
    used = {"Idempotency-Key": "k"}
    async with acme.stream(
        "POST", "/v1/chat/completions", json={"model": SOL, "messages": HELLO, "stream": True}, headers=used
    ) as answer:
        assert answer.status_code == 200
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        await client.chat.completions.create(
            model=SOL, messages=[{"role": "user", "content": "Other"}], extra_headers=used
        )
    assert raised.value.code == "idempotency_key_reused"


@pytest.fixture
async def live(acme, worker):
    """A streamed completion whose worker is played by hand: (job id, its frames as they come, the reading task)."""
    got: list[dict] = []
    ready = asyncio.get_running_loop().create_future()

    async def read():
        body = {"model": SOL, "messages": HELLO, "stream": True}
        async with acme.stream("POST", "/v1/chat/completions", json=body, timeout=LIMIT) as answer:
            ready.set_result(answer.headers["x-vigil-job"])
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    got.append(json.loads(line[6:]) if line[6:] != "[DONE]" else line[6:])  # noqa: PERF401

    task = asyncio.create_task(read())
    job_id = await ready
    await worker.start(job_id)
    await worker.text(job_id, 1, 0, "secret " * 10)

    async def shown():
        return any(chunk["choices"][0]["delta"].get("content") for chunk in got)

    await until("the text to be shown", shown)
    yield job_id, got, task
    task.cancel()


async def test_a_block_after_text_ends_the_stream_with_an_error(live, worker):
    job_id, got, task = live
    await worker.block(job_id)
    await task
    assert got[-1]["error"]["code"] == "cyber_policy"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in got[:-1]), "nothing says that it ended well"


async def test_text_of_another_attempt_is_never_joined_to_it(live, worker):
    job_id, got, task = live
    await worker.commit(job_id, (ev.AttemptFinished(outcome="lost"), 1))
    await worker.attempt(job_id, 2, purpose="retry")
    await worker.text(job_id, 2, 0, "y" * 70)
    await task
    assert got[-1]["error"]["code"] == "output_superseded"
    assert "y" not in "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in got[:-1])


async def test_an_answer_that_is_not_what_was_shown_is_an_error(live, worker):
    job_id, got, task = live
    await worker.complete(job_id, "something else")
    await task
    assert got[-1]["error"]["code"] == "output_superseded"


async def test_a_process_that_stops_says_so(live, api):
    _, got, task = live
    api.stop.set()
    await task
    assert got[-1]["error"]["code"] == "stream_interrupted"


NOT_OFFERED = [
    (lambda c: c.embeddings.create(model="m", input="x"), "provider"),
    (lambda c: c.files.list(), "file_data"),
    (lambda c: c.files.retrieve("file-1"), "file_data"),
    (lambda c: c.images.generate(model="m", prompt="x"), "provider"),
    (lambda c: c.audio.speech.create(model="m", input="x", voice="alloy"), "provider"),
    (lambda c: c.moderations.create(input="x"), "provider"),
    (lambda c: c.batches.list(), "/v1/jobs/batch"),
    (lambda c: c.fine_tuning.jobs.list(), "provider"),
    (lambda c: c.vector_stores.list(), "input_file"),
    (lambda c: c.completions.create(model="m", prompt="x"), "/v1/chat/completions"),
    (lambda c: c.chat.completions.list(), "/v1/jobs"),
    (lambda c: c.chat.completions.retrieve("chatcmpl-1"), "/v1/jobs/{id}"),
    (lambda c: c.chat.completions.delete("chatcmpl-1"), "/v1/responses/{id}"),
    (lambda c: c.get("/nonsense/../x y", cast_to=object), "/v1/responses"),
]


@pytest.mark.parametrize(("call", "way_out"), NOT_OFFERED)
async def test_what_is_not_offered_is_named_with_a_way_out(client, call, way_out):
    with pytest.raises((openai.NotFoundError, openai.APIStatusError)) as raised:
        await call(client)
    error = raised.value
    assert error.status_code in (404, 405)
    assert (error.status_code == 405) == ("allow" in error.response.headers)
    assert error.type == "invalid_request_error"
    assert error.code in ("not_found", "method_not_allowed")
    assert way_out in error.body["message"]
    assert error.request_id


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/jobs/x/y", 404), ("PUT", "/v1/jobs", 405), ("GET", "/v2", 404), ("POST", "/v1/status", 405)],
)
async def test_vigils_own_paths_keep_problem_documents(acme, method, path, status):
    unknown = await acme.request(method, "/v1/nothing")
    assert unknown.json()["code"] == unknown.json()["error"]["code"] == "not_found", "either client may ask for it"
    answer = await acme.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_models_in_openais_shape(client, acme):
    listed = [model async for model in client.models.list()]
    assert {(model.object, model.owned_by, type(model.created)) for model in listed} == {("model", "vigil", int)}
    one = await client.models.retrieve(SOL)
    assert one == next(model for model in listed if model.id == SOL)
    assert (await client.models.retrieve("gpt-5.6")).id == SOL, "by an alias"
    for name in ("gpt-99", "a/b", "probe"):
        with pytest.raises(openai.NotFoundError) as raised:
            await client.models.retrieve(name)
        assert raised.value.code == "model_not_found"
    for path in ("/v1/models", f"/v1/models/{SOL}"):
        answer = await acme.get(path, headers={"authorization": "Bearer vgl_wrong"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), "a problem document"
        assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_a_websocket_is_refused_with_a_way_out(acme):
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = await acme.get("/v1/responses", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (426, "websocket_not_supported")
    assert "stream=True" in answer.json()["error"]["message"]


async def test_the_id_of_a_completion_is_the_jobs(acme):
    job_id = await submitted(acme)
    assert (await acme.get(f"/v1/jobs/{job_id.replace('job_', 'chatcmpl-')}")).json()["id"] == job_id
