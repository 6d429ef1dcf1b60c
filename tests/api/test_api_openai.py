"""The OpenAI-compatible API through OpenAI's SDK: create, wait, poll, parse, tools, cancel, delete."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from in_process import until
from openai_sdk import LUNA, SOL, blocking, sdk_against_api
from pydantic import BaseModel


@pytest.fixture
async def sdk(settings, redis, clock, valkey_url):
    async with sdk_against_api(settings, redis, clock, valkey_url) as sdk:
        yield sdk


async def over(sdk, response_id):
    async def look():
        found = await sdk.client.responses.retrieve(response_id)
        return found if found.status not in {"queued", "in_progress"} else None

    return await until(f"{response_id} to end", look)


async def test_background_and_poll(sdk):
    made = await sdk.client.responses.create(
        model=SOL, input="Hello", instructions="Be kind.", background=True, metadata={"ticket": "A-17"}, temperature=0.3
    )
    assert (made.status, made.object, made.model, made.output) == ("queued", "response", SOL, [])
    assert made.id.startswith("resp_")
    assert made.vigil["job_id"] == "job_" + made.id.removeprefix("resp_")
    done = await over(sdk, made.id)
    assert (done.status, done.model, done.error, done.incomplete_details) == ("completed", SOL, None, None)
    assert len(done.output_text) > 20
    assert done.output[0].type == "message"
    assert (done.metadata, done.temperature, done.instructions) == ({"ticket": "A-17"}, 0.3, "Be kind.")
    assert done.usage.input_tokens > 0
    assert done.usage.output_tokens > 0
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    assert (done.usage.input_tokens_details.cached_tokens, done.usage.output_tokens_details.reasoning_tokens) == (0, 0)
    assert (done.created_at, done.completed_at) == (int(done.created_at), int(done.completed_at))
    assert done.vigil["disclosure"] is None
    assert done.vigil["safety"]["state"] == "none"
    again = json.loads(done.to_json())
    assert again["output"][0]["content"][0]["type"] == "output_text"


async def test_waiting_sync_and_async(sdk):
    waited = await sdk.client.responses.create(model=SOL, input="Hello")
    assert waited.status == "completed"
    assert waited.output_text
    same = await blocking(lambda: sdk.blocking.responses.create(model=SOL, input="Hello"))
    assert (same.status, same.output_text) == ("completed", waited.output_text)
    assert same.id != waited.id


async def test_a_long_wait_is_kept_alive_by_spaces(sdk, monkeypatch):
    monkeypatch.setattr("api.openai_compat.routes._HEAD_AFTER_S", 0.05)
    monkeypatch.setattr("api.openai_compat.routes._KEEP_ALIVE_S", 0.05)
    prompt = "[[sim: silent_delay hold=20]] Hello"
    raw = await sdk.client.responses.with_raw_response.create(model=SOL, input=prompt)
    assert raw.http_response.text.startswith("  ")
    assert (await blocking(raw.parse)).status == "completed"


async def test_either_id_works_in_either_api(sdk):
    made = await sdk.client.responses.create(model=SOL, input="Hello")
    job_id = made.vigil["job_id"]
    for path in (f"/v1/jobs/{made.id}", f"/v1/jobs/{job_id}"):
        job = (await sdk.http.get(path)).json()
        assert (job["id"], job["output_text"]) == (job_id, made.output_text)
    assert (await sdk.client.responses.retrieve(job_id)).id == made.id
    plain = (await sdk.http.post("/v1/jobs", json={"model": SOL, "input": "Hello"})).json()
    assert (await over(sdk, plain["id"])).output_text == made.output_text


async def test_headers_of_a_finished_response(sdk, monkeypatch):
    monkeypatch.setattr("api.openai_compat.routes._HEAD_AFTER_S", 60)
    raw = await sdk.client.responses.with_raw_response.create(model=SOL, input="Hello")
    assert raw.headers["x-vigil-served-model"] == SOL
    assert raw.request_id
    prompt = "[[sim: rerouted]] Hello"
    raw = await sdk.client.responses.with_raw_response.create(model=SOL, input=prompt)
    response = await blocking(raw.parse)
    assert raw.headers["x-vigil-served-model"] == response.model != SOL
    assert raw.headers["x-vigil-substituted"] == "provider_reroute"
    assert response.vigil["disclosure"]["requested_model"] == SOL


async def test_a_switch_is_disclosed(sdk):
    prompt = "[[sim: check_then_clear hold=60]] Hello"
    policy = {"on_delay": {"action": "switch", "after_seconds": 0.2}}
    done = await sdk.client.responses.create(model=SOL, input=prompt, extra_body={"vigil": {"policy": policy}})
    assert (done.status, done.model) == ("completed", LUNA)
    assert done.vigil["disclosure"]["reason"] == "safety_check_delay"
    assert done.vigil["requested_model"] == SOL


class Pet(BaseModel):
    name: str
    age: int


async def test_structured_output(sdk):
    parsed = await sdk.client.responses.parse(model=SOL, input="A pet", text_format=Pet)
    assert parsed.output_parsed == Pet(name="ok", age=1)
    same = await blocking(lambda: sdk.blocking.responses.parse(model=SOL, input="A pet", text_format=Pet))
    assert same.output_parsed == parsed.output_parsed
    assert parsed.text.format.type == "json_schema"
    async with sdk.client.responses.stream(model=SOL, input="A pet", text_format=Pet) as stream:
        async for _ in stream:
            pass
        assert (await stream.get_final_response()).output_parsed == parsed.output_parsed


TOOL = {
    "type": "function",
    "name": "weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


async def test_tools(sdk):
    done = await sdk.client.responses.create(model=SOL, input="[[sim: normal tool=1]] Weather?", tools=[TOOL])
    call = done.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "ok"})
    assert done.tools[0].name == "weather"
    after = [*[item.to_dict() for item in done.output]]
    after.append({"type": "function_call_output", "call_id": call.call_id, "output": "rain"})
    assert (await sdk.client.responses.create(model=SOL, input=after, tools=[TOOL])).status == "completed"


async def test_refusal_and_token_limit(sdk):
    refused = await sdk.client.responses.create(model=SOL, input="[[sim: refusal]] Hello")
    assert refused.status == "completed"
    assert refused.output[0].content[0].refusal.startswith("Sorry")
    cut = await sdk.client.responses.create(model=SOL, input="[[sim: max_tokens]] Hello")
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.output_text


@pytest.mark.parametrize(
    ("scenario", "code"),
    [
        ("check_block_after_output", "cyber_policy"),
        ("bio_block", "bio_policy"),
        ("block_before_stream hold=1", "cyber_policy"),
    ],
)
async def test_a_blocked_response_shows_no_text_anywhere(sdk, scenario, code):
    made = await sdk.client.responses.create(model=SOL, input=f"[[sim: {scenario}]] Hello")
    assert (made.status, made.error.code, made.output, made.output_text) == ("failed", code, [], "")
    assert made.error.message.startswith("The provider withheld")
    assert "simulated" not in made.to_json(warnings=False)
    assert made.vigil["status"] == "blocked"
    events = await sdk.frames(made.id)
    assert b"response.failed" in events[-1][1]
    assert code.encode() in events[-1][1]
    assert not any(b'"delta":"' in raw and b'"delta":""' not in raw for _, raw in events)
    assert await sdk.frames(made.id) == events


async def test_failures_keep_their_reason(sdk):
    failed = await sdk.client.responses.create(
        model=SOL, input="[[sim: model_not_found]] Hi", extra_body={"vigil": {"policy": {"fallback": []}}}
    )
    assert failed.status == "failed"
    assert failed.error.code == "model_not_found", "the provider's"
    assert failed.vigil["error"]["code"] == "model_not_granted", "ours"
    late = await sdk.client.responses.create(
        model=SOL,
        input="[[sim: silent_delay hold=600]] Hi",
        extra_body={"vigil": {"policy": {"run_deadline_seconds": 0.5}}},
    )
    assert (late.status, late.error.code, late.vigil["status"]) == ("failed", "deadline_exceeded", "expired")


async def test_cancel_while_it_runs_and_again(sdk):
    made = await sdk.client.responses.create(model=SOL, input="[[sim: silent_delay hold=600]] Hi", background=True)
    await sdk.stage.reaches(made.vigil["job_id"], "an attempt", lambda job: job.open_attempts)
    assert (await sdk.client.responses.retrieve(made.id)).status == "in_progress"
    gone = await sdk.client.responses.cancel(made.id)
    assert (gone.status, gone.output, gone.error) == ("cancelled", [], None)
    assert gone.vigil["error"]["code"] == "cancelled"
    assert (await blocking(lambda: sdk.blocking.responses.cancel(made.id))).status == "cancelled"
    events = [json.loads(raw.partition(b"data: ")[2]) for _, raw in await sdk.frames(made.id)]
    assert [e["type"] for e in events] == ["response.created", "response.in_progress", "response.failed"]
    assert (events[-1]["response"]["status"], events[-1]["response"]["error"]["code"]) == ("cancelled", "cancelled")


async def test_cancel_leaves_what_is_over_as_it_is(sdk):
    done = await sdk.client.responses.create(model=SOL, input="Hello")
    assert (await sdk.client.responses.cancel(done.id)).status == "completed"


async def test_delete_takes_the_content_and_leaves_the_trail(sdk, redis):
    done = await sdk.client.responses.create(model=SOL, input="Secret prompt", metadata={"who": "Ann"})
    job_id = done.vigil["job_id"]
    raw = await sdk.client.responses.with_raw_response.delete(done.id)
    assert raw.http_response.json() == {"id": done.id, "object": "response", "deleted": True}
    with pytest.raises(openai.NotFoundError):
        await sdk.client.responses.retrieve(done.id)
    with pytest.raises(openai.NotFoundError):
        await sdk.client.responses.delete(done.id)
    job = (await sdk.http.get(f"/v1/jobs/{job_id}")).json()
    assert (job["status"], job["output_text"], job["output"], job["metadata"]) == ("completed", None, [], {})
    trail = (await sdk.http.get(f"/v1/jobs/{job_id}/audit")).json()["data"]
    assert [row["type"] for row in trail[-2:]] == ["job.completed", "job.content.removed"]
    for key in await redis.keys("*"):
        if await redis.type(key) == b"string":
            assert b"Secret prompt" not in await redis.get(key), key
            assert done.output_text.encode() not in await redis.get(key), key


async def test_delete_cancels_what_runs(sdk):
    made = await sdk.client.responses.create(model=SOL, input="[[sim: silent_delay hold=600]] Hi", background=True)
    await sdk.stage.reaches(made.vigil["job_id"], "an attempt", lambda job: job.open_attempts)
    assert await blocking(lambda: sdk.blocking.responses.delete(made.id)) is None
    assert (await sdk.stage.job(made.vigil["job_id"])).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        await sdk.client.responses.retrieve(made.id)


async def test_an_idempotency_key_gives_one_job(sdk):
    async def job_body():
        return await sdk.client.responses.with_raw_response.create(
            model=SOL, input="Hello", background=True, extra_headers={"Idempotency-Key": "k-1"}
        )

    answers = await asyncio.gather(*(job_body() for _ in range(4)))
    assert len({answer.http_response.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 3


@pytest.mark.parametrize(
    ("given", "person"),
    [
        ({"safety_identifier": "ann"}, "ann"),
        ({"extra_body": {"user": "ben"}}, "ben"),
        ({"safety_identifier": "ann", "extra_body": {"user": "ben"}}, "ann"),
        ({"safety_identifier": "ann", "extra_body": {"vigil": {"end_user": "cy"}}}, "cy"),
    ],
)
async def test_the_end_user_of_the_request(sdk, given, person):
    made = await sdk.client.responses.create(model=SOL, input="Hello", background=True, **given)
    listed = (await sdk.http.get("/v1/jobs", params={"end_user": person})).json()["data"]
    assert [job["id"] for job in listed] == [made.vigil["job_id"]]
    assert made.safety_identifier == person
    job = await sdk.stage.settled(made.vigil["job_id"])
    assert job.safety_identifier != person


@pytest.mark.parametrize(
    ("sent", "passed_on"), [({"mode": "implicit"}, {"prompt_cache_options": {"mode": "implicit"}}), ({}, {})]
)
async def test_a_comparison_with_an_earlier_response_is_left_out(sdk, sent, passed_on):
    options = {**sent, "comparison_response_id": "resp_1"}  # as pydantic-ai sends it
    made = await sdk.client.responses.create(
        model=SOL, input="Hello", background=True, extra_body={"prompt_cache_options": options}
    )
    assert (await sdk.stage.jobs.load_input(made.vigil["job_id"]))["params"] == passed_on


async def test_params_pass_through_and_ours_do_not(sdk):
    made = await sdk.client.responses.create(
        model=SOL,
        input="Hello",
        background=True,
        store=False,
        truncation="auto",
        service_tier="flex",
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        extra_body={"something_new": {"a": 1}, "vigil": {"priority": "high", "metadata": {"ours": "1"}}},
        metadata={"theirs": "2"},
    )
    job_id = made.vigil["job_id"]
    assert (made.truncation, made.service_tier, made.store) == ("auto", "flex", False)
    assert made.metadata == {"theirs": "2", "ours": "1"}
    stored_input = await sdk.stage.jobs.load_input(job_id)
    assert stored_input["params"] == {
        "truncation": "auto",
        "service_tier": "flex",
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
        "something_new": {"a": 1},
    }
    assert (await sdk.stage.job(job_id)).priority == "high"
