"""Counting tokens and compacting through OpenAI's SDK: a worker asks the provider, and no job is made."""

from __future__ import annotations

import asyncio
import base64
import json
import os

import openai
import pytest
from api_server import running
from in_process import until
from openai_sdk import SOL, sdk_against_api

from worker.store import keys


@pytest.fixture
async def sdk(settings, redis, clock, valkey_url):
    async with sdk_against_api(settings, redis, clock, valkey_url, speed=200.0) as sdk:
        yield sdk


async def refused(kind, code, call):
    with pytest.raises(kind) as raised:
        await call
    assert raised.value.code == code, raised.value
    return raised.value


async def test_tokens_are_counted_with_what_is_continued(sdk, redis):
    count = sdk.client.responses.input_tokens.count
    alone = await count(model=SOL, input="Two, and some more words")
    assert alone.object == "response.input_tokens"
    one = await sdk.client.responses.create(model=SOL, input="One")
    chained = await count(model=SOL, input="Two, and some more words", previous_response_id=one.id)
    assert chained.input_tokens > alone.input_tokens > 0
    conversation = await sdk.client.conversations.create(items=[{"role": "user", "content": "Before " * 50}])
    assert (await count(model=SOL, input="x", conversation=conversation.id)).input_tokens > 50
    assert (await count(model=SOL, previous_response_id=one.id)).input_tokens > 0
    made = sdk.stage.sim.calls()
    assert (made["counts"], made["creates"]) == (4, 1)
    assert await redis.zcard(keys.index("acme")) == 1, "no job is made"


async def test_pictures_are_counted_that_a_response_may_continue(settings, redis, clock, valkey_url):
    settings = settings.model_copy(update={"max_body_bytes": None})
    async with sdk_against_api(settings, redis, clock, valkey_url, speed=200.0) as sdk:
        count = sdk.client.responses.input_tokens.count

        def with_picture(size):
            picture = "data:image/png;base64," + base64.b64encode(os.urandom(size)).decode()
            return [{"role": "user", "content": [{"type": "input_image", "image_url": picture, "detail": "auto"}]}]

        assert (await count(model=SOL, input=with_picture(1_500_000))).input_tokens > 0
        await refused(openai.APIStatusError, "input_too_large", count(model=SOL, input=with_picture(4_000_000)))
        assert sdk.stage.sim.calls()["counts"] == 1


async def test_a_long_input_is_compacted_and_the_items_are_sent_on(sdk, redis):
    one = await sdk.client.responses.create(model=SOL, input="One")
    made = await sdk.client.responses.compact(model=SOL, input="Two", previous_response_id=one.id)
    assert (made.object, made.output[-1].type) == ("response.compaction", "compaction")
    assert made.usage.total_tokens > 0
    items = [item.model_dump(exclude_none=True, warnings=False) for item in made.output]
    two = await sdk.client.responses.create(model=SOL, input=[*items, {"role": "user", "content": "Three"}])
    three = await sdk.client.responses.create(model=SOL, input="Four", previous_response_id=two.id)
    assert (two.status, three.status) == ("completed", "completed")
    rows = [json.loads(row[b"record"]) for _, row in await redis.xrange(keys.AUDIT)]
    (note,) = [row for row in rows if row["type"] == "response.compacted"]
    assert (note["app"], note["data"]["model"]) == ("acme", SOL)
    assert note["data"]["usage"]["total_tokens"] == made.usage.total_tokens
    assert note["data"]["input_digest"]


async def test_errors_are_openai_s_and_what_a_response_may_not_ask_is_refused(sdk):
    compact, count = sdk.client.responses.compact, sdk.client.responses.input_tokens.count
    sdk.stage.sim.deny(SOL)
    await refused(openai.NotFoundError, "model_not_found", compact(model=SOL, input="x"))
    sdk.stage.sim.deny()
    before = sdk.stage.sim.calls()["compactions"]
    for call in (compact, count):
        await refused(openai.NotFoundError, "model_not_found", call(model="gpt-99", input="x"))
        await refused(
            openai.BadRequestError, "previous_response_not_found", call(model=SOL, previous_response_id="resp_1")
        )
        await refused(
            openai.BadRequestError,
            "unsupported_parameter",
            call(model=SOL, input=[{"type": "item_reference", "id": "x"}]),
        )
    assert sdk.stage.sim.calls()["compactions"] == before
    error = await refused(
        openai.BadRequestError, "cyber_policy", compact(model=SOL, input="[[sim: block_before_stream hold=0]] x")
    )
    assert "sim:" not in str(error)


async def test_without_a_worker_nothing_is_sent_and_the_error_comes_at_once(settings, redis, clock, valkey_url):
    async with sdk_against_api(settings, redis, clock, valkey_url, worker=False) as sdk:
        for path in ("input_tokens", "compact"):
            answer = await sdk.http.post(f"/v1/responses/{path}", json={"model": SOL, "input": "x"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker")
        assert not [name async for name in redis.scan_iter("vigil:relayed:*")]


async def test_an_app_has_a_few_under_way_in_all_processes_and_a_few_waiting(settings, redis, clock, sdk):
    body = {"model": SOL, "input": "[[sim: block_before_stream hold=50000]] x"}
    async with running(settings, redis, clock) as another:
        processes = [sdk.http, await another.client(key=sdk.key)]
        post = [one.post for one in processes for _ in range(9)]
        sending = [asyncio.create_task(send("/v1/responses/compact", json=body)) for send in post]

        async def refused_ones():
            return sum(one.done() for one in sending) == 2

        await until("two of eighteen to be refused", refused_ones)
        (first, second) = [one.result() for one in sending if one.done()]
        assert first.status_code == second.status_code == 429, "4 run, 12 wait"
        assert first.json()["error"]["code"] == "too_many_requests"
        assert int(first.headers["retry-after"]) > 0

        await until("four to be with the provider", lambda: compactions_are(sdk, 4))
        other = await sdk.api.client("other")
        alone = await other.post("/v1/responses/input_tokens", json={"model": SOL, "input": "x"})
        assert alone.status_code == 200, "another app is not kept waiting"
        assert await compactions_are(sdk, 4)
        sdk.stage.hurry()
        assert sorted([(await one).status_code for one in sending]) == [400] * 16 + [429] * 2
        assert not await redis.exists(*(keys.relayed(kind, "acme") for kind in ("running", "waiting")))


async def test_clients_that_leave_leave_their_requests_under_way(sdk, redis):
    body = {"model": SOL, "input": "[[sim: block_before_stream hold=50000]] x"}
    for number in range(1, 5):
        leaving = asyncio.create_task(sdk.http.post("/v1/responses/compact", json=body))
        await until("the provider to be asked", lambda n=number: compactions_are(sdk, n))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    fifth = asyncio.create_task(sdk.http.post("/v1/responses/compact", json=body))

    async def waits():
        return await redis.zcard(keys.relayed("waiting", "acme")) == 1

    await until("the fifth to wait", waits)
    assert await compactions_are(sdk, 4)
    sdk.stage.hurry()
    assert (await fifth).status_code == 400, "it was sent once they had ended"


async def compactions_are(sdk, number):
    return sdk.stage.sim.calls()["compactions"] == number


async def test_a_provider_with_chat_only_has_neither(settings, redis, clock, valkey_url):
    chat = settings.model_copy(update={"upstream": "chat"})
    async with sdk_against_api(chat, redis, clock, valkey_url, worker=False) as sdk:
        await refused(
            openai.NotFoundError,
            "not_supported_by_provider",
            sdk.client.responses.input_tokens.count(model=SOL, input="x"),
        )
