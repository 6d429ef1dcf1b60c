"""previous_response_id and item references, through OpenAI's SDK against a real API, worker and simulator."""

from __future__ import annotations

import hashlib
import json

import openai
import pytest
from api_server import running
from in_process import until
from openai_sdk import LUNA, SOL, blocking, sdk_against_api

HOLD = "[[sim: check_then_clear hold=50000]]"


@pytest.fixture
async def sdk(settings, redis, clock, valkey_url):
    async with sdk_against_api(settings, redis, clock, valkey_url, speed=200.0) as sdk:
        yield sdk


def user(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def as_sent(response):
    """The answer as the provider is sent it again."""
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": response.output_text}]}


def sent(sdk):
    """(number of items, their digest) of each create that the provider saw with a list of items, in order."""
    calls = [call for call in sdk.stage.sim.calls()["calls"] if call["items"] is not None]
    return [(call["items"], call["items_sha256"]) for call in calls]


def digest(items):
    return (
        len(items),
        hashlib.sha256(json.dumps(items, sort_keys=True, separators=(",", ":")).encode()).hexdigest(),
    )


async def say(sdk, text, **more):
    return await sdk.client.responses.create(**{"model": SOL, "input": text, **more})


async def refused(kind, code, call):
    with pytest.raises(kind) as raised:
        await call
    assert raised.value.code == code, raised.value
    return raised.value


async def test_a_chain_is_sent_whole_with_another_model_streamed_and_in_the_background(sdk):
    one = await say(sdk, "One", instructions="Only now.")
    stream = await say(sdk, "Two", model=LUNA, previous_response_id=one.id, stream=True)
    events = [event async for event in stream]
    two = events[-1].response
    assert (two.status, two.previous_response_id, two.instructions) == ("completed", one.id, None)
    assert all(event.response.previous_response_id == one.id for event in events if hasattr(event, "response"))
    three = await say(sdk, [{"role": "user", "content": "Three"}], previous_response_id=two.id, background=True)

    async def ended():
        found = await sdk.client.responses.retrieve(three.id)
        return found if found.status == "completed" else None

    three = await until("the third turn to end", ended)
    assert three.previous_response_id == two.id
    chain = [user("One"), as_sent(one), user("Two"), as_sent(two), {"role": "user", "content": "Three"}]
    assert sent(sdk) == [digest(chain[:3]), digest(chain)]
    assert three.usage.input_tokens > two.usage.input_tokens


async def test_the_blocking_client_and_the_native_api_continue_the_same_chain(sdk, jobs):
    one = await blocking(lambda: sdk.blocking.responses.create(model=SOL, input="One"))
    two = await blocking(lambda: sdk.blocking.responses.create(model=SOL, input="Two", previous_response_id=one.id))
    body = {"model": SOL, "input": "Three", "params": {"previous_response_id": two.id, "temperature": 0.5}}
    answer = await sdk.http.post("/v1/jobs", json=body, headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert sent(sdk)[-1] == digest([user("One"), as_sent(one), user("Two"), as_sent(two), user("Three")])
    kept = await jobs.load_input(answer.json()["id"])
    assert kept["params"] == {"temperature": 0.5}
    priced = await sdk.http.post("/v1/jobs?dry_run=true", json=body)
    alone = await sdk.http.post("/v1/jobs?dry_run=true", json={"model": SOL, "input": "Three"})
    likely = [one.json()["cost"]["input_tokens"]["likely"] for one in (priced, alone)]
    assert likely[0] > likely[1]


async def test_input_items_are_listed_page_by_page_with_ids_that_stay(sdk):
    one = await say(sdk, "One")
    two = await say(sdk, [{"role": "user", "content": "Two"}], previous_response_id=one.id)
    three = await say(sdk, "Three", previous_response_id=two.id)
    items = [item async for item in sdk.client.responses.input_items.list(three.id, limit=2, order="asc")]
    assert [item.role for item in items] == ["user", "assistant", "user", "assistant", "user"]
    assert [item.content[0].text for item in items] == ["One", one.output_text, "Two", two.output_text, "Three"]
    assert [items[1].id, items[3].id] == [one.output[0].id, two.output[0].id]
    newest = await sdk.client.responses.input_items.list(three.id, include=["message.output_text.logprobs"])
    assert [item.id for item in newest.data] == [item.id for item in reversed(items)]
    earlier = [item async for item in sdk.client.responses.input_items.list(two.id, order="asc")]
    assert [item.id for item in earlier] == [item.id for item in items[:3]]
    rest = await sdk.client.responses.input_items.list(three.id, after=items[1].id)
    assert [item.id for item in rest.data] == [items[0].id]
    for bad in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "msg_x"}):
        with pytest.raises(openai.UnprocessableEntityError) as raised:
            await sdk.client.responses.input_items.list(three.id, **bad)
        assert raised.value.param == next(iter(bad))


async def test_only_what_the_app_itself_made_stored_and_kept_is_continued(sdk):
    other = openai.AsyncOpenAI(base_url=f"{sdk.api.base_url}/v1", api_key=await sdk.api.key("other"), max_retries=0)
    one = await say(sdk, "One")
    two = await say(sdk, "Two", previous_response_id=one.id)
    unstored = await say(sdk, "Not kept", store=False)
    gone = {"kind": openai.BadRequestError, "code": "previous_response_not_found"}
    async with other:
        foreign = await refused(**gone, call=other.responses.create(model=SOL, input="x", previous_response_id=two.id))
    unknown = await refused(**gone, call=say(sdk, "x", previous_response_id="resp_unknown"))
    assert foreign.body == unknown.body, "an app can't tell another's response from one that does not exist"
    assert (foreign.status_code, foreign.param) == (400, "previous_response_id")
    await refused(**gone, call=say(sdk, "x", previous_response_id=unstored.id))
    await sdk.client.responses.delete(one.id)
    await refused(**gone, call=say(sdk, "x", previous_response_id=one.id))
    cut = await refused(**gone, call=say(sdk, "x", previous_response_id=two.id))
    assert "deleted" in cut.body["message"]
    await refused(
        openai.BadRequestError,
        "mutually_exclusive_parameters",
        say(sdk, "x", previous_response_id=two.id, conversation="conv_1"),
    )
    answer = await sdk.http.post("/v1/jobs", json={"model": SOL, "input": "x", "params": {"conversation": "conv_1"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "conversation_not_found")
    for bad in ({"conversation": {}}, {"conversation": 5}, {"previous_response_id": ["resp_1"]}):
        answer = await sdk.http.post("/v1/responses", json={"model": SOL, "input": "x", **bad})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, next(iter(bad)))


async def test_what_has_no_answer_is_not_continued(sdk):
    running = await say(sdk, f"{HOLD} Wait", background=True)
    blocked = await say(sdk, "[[sim: prompt_block hold=0]] Stop")
    assert blocked.status == "failed"
    await refused(
        openai.BadRequestError, "previous_response_in_progress", say(sdk, "x", previous_response_id=running.id)
    )
    creates = sdk.stage.sim.calls()["creates"]
    await refused(
        openai.BadRequestError, "previous_response_not_completed", say(sdk, "x", previous_response_id=blocked.id)
    )
    assert sdk.stage.sim.calls()["creates"] == creates
    await sdk.client.responses.cancel(running.id)


async def test_a_repeated_request_is_its_first_job_even_once_the_chain_is_gone(sdk):
    one = await say(sdk, "One")
    key = {"extra_headers": {"Idempotency-Key": "turn-2"}}
    two = await say(sdk, "Two", previous_response_id=one.id, **key)
    await sdk.client.responses.delete(one.id)
    again = await say(sdk, "Two", previous_response_id=one.id, **key)
    assert again.id == two.id
    await refused(openai.UnprocessableEntityError, "idempotency_key_reused", say(sdk, "Two", **key))


async def test_a_chain_is_bounded(sdk):
    many = [{"role": "user", "content": "x"}] * 999
    one = await say(sdk, many)
    error = await refused(openai.APIStatusError, "input_too_large", say(sdk, "y", previous_response_id=one.id))
    assert (error.status_code, error.param) == (413, "previous_response_id")
    assert "1001 items" in error.body["message"]


async def test_item_references_are_resolved_if_they_name_items_of_the_app(sdk):
    stream = await say(sdk, "One", stream=True)
    events = [event async for event in stream]
    one, live = events[-1].response, next(e.item.id for e in events if e.type == "response.output_item.done")
    for name in dict.fromkeys((one.output[0].id, live)):
        await say(sdk, [{"role": "user", "content": "One"}, {"type": "item_reference", "id": name}, user("Two")])
        assert sent(sdk)[-1] == digest([{"role": "user", "content": "One"}, as_sent(one), user("Two")])
    reference = {"type": "item_reference", "id": one.output[0].id}
    async with openai.AsyncOpenAI(
        base_url=f"{sdk.api.base_url}/v1", api_key=await sdk.api.key("other"), max_retries=0
    ) as other:
        error = await refused(
            openai.BadRequestError,
            "unsupported_parameter",
            other.responses.create(model=SOL, input=[user("One"), reference]),
        )
        assert error.param == "input[1].id"


async def test_a_tool_call_and_its_result_go_on(sdk):
    tools = [{"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}]
    one = await say(sdk, "[[sim: tool_call]] Weather?", tools=tools)
    call = next(item for item in one.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    two = await say(sdk, [result], previous_response_id=one.id, tools=tools)
    assert two.status == "completed"
    expected = [
        user("[[sim: tool_call]] Weather?"),
        *(
            {"type": "function_call", "call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            if item.type == "function_call"
            else as_sent(one)
            for item in one.output
            if item.type != "reasoning"
        ),
        result,
    ]
    assert sent(sdk)[-1] == digest(expected)


async def test_a_chain_survives_a_restart_of_the_api(sdk, settings, redis, clock):
    one = await say(sdk, "One")
    conversation = await sdk.client.conversations.create(items=[user("Before")])
    async with (
        running(settings, redis, clock) as again,
        openai.AsyncOpenAI(base_url=f"{again.base_url}/v1", api_key=sdk.key, max_retries=0) as client,
    ):
        await client.responses.create(model=SOL, input="Two", previous_response_id=one.id)
        await client.responses.create(model=SOL, input="Three", conversation=conversation.id)
    assert sent(sdk) == [digest([user("One"), as_sent(one), user("Two")]), digest([user("Before"), user("Three")])]
